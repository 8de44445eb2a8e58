"""How does a fleet come back after an outage: how soon, and how gently?

Each slot is a process that makes one call after the other, as a worker does whose queue never empties. The service
answers in 100 ms, then fails for a while, then is well again. As many slots do the same, at the same time, with a
service that stays well: what is normal is what those do, however busy the machine is. `guarded` has a worker's
settings but for `recovery_timeout`; `unprotected` tries again after a tenth of a second.

back after    seconds from the end of recovery_timeout until 90 % of the normal rate flow again, for half a second
peak          the busiest half second after the outage began, against what is normal then
disturbed     half seconds in which even the calm service was asked less than half of what is usual: the machine
              had no processor for us, and what is told of them is told of the machine
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx

from benchmarks import harness
from benchmarks.harness import Figures, Row
from bridge_tasks import events
from bridge_tasks.errors import BridgeError, CircuitBreakerError
from bridge_tasks.runtime import Runtime
from bridge_tasks.sandbox import metadata_service
from bridge_tasks.sandbox.control import controls_of
from bridge_tasks.sandbox.faults import Latency, Status
from bridge_tasks.sandbox.redis import private_redis
from bridge_tasks.sandbox.server import running
from bridge_tasks.settings import Settings

ANSWER_SECONDS = 0.1
SETTLING, NORMAL, OUTAGE, AFTER = 1.0, 3.0, 1.5, 5.0
"""Seconds: not counted yet, and counted as normal; of the failing service; and watched after recovery_timeout."""

PAUSE = 0.02
"""Seconds between two refusals in one slot: what a queue takes to hand out the next job."""

ENOUGH, WINDOW, SHORT = 0.9, 0.5, 0.25
DISTURBED = 0.5
TROUBLED, CALM = "troubled", "calm"

Sent = list[list[float]]
"""When each request was sent, and whether its answer was good (1 or 0)."""


def guarded_slot(url: str, redis_url: str, recovery: float, ends: float) -> dict[str, Any]:
    """Call until the end through a worker's runtime; tell what was sent, and how the circuit changed."""
    sent: Sent = []
    changes: list[list[Any]] = []

    def listen(event: events.Event) -> None:
        now = time.monotonic()
        if isinstance(event, events.RequestFinished):
            sent.append([now - event.seconds, float(event.status == httpx.codes.OK)])
        elif isinstance(event, events.CircuitChanged):
            changes.append([now, str(event.new)])

    events.subscribe(listen)
    service = {"urls": (url,), "breaker": {"recovery_timeout": recovery, **_AS_IN_WORKERS}}
    runtime = Runtime(Settings.model_validate({"redis_url": redis_url, "metadata": service}))
    while time.monotonic() < ends:
        try:
            runtime.run(runtime.metadata.health_check())
        except CircuitBreakerError:
            time.sleep(PAUSE)
        except BridgeError:
            continue
    runtime.close()
    return {"sent": sent, "changes": changes}


_WORKER = Settings.model_validate({"metadata": {"urls": "http://127.0.0.1"}}).metadata.breaker
_AS_IN_WORKERS = {
    name: getattr(_WORKER, name) for name in ("failure_rate_threshold", "max_recovery_timeout", "ramp_seconds")
}


def unprotected_slot(url: str, ends: float) -> dict[str, Any]:
    """Call until the end with nothing but httpx."""
    sent: Sent = []
    client = httpx.Client()
    while time.monotonic() < ends:
        began, good = time.monotonic(), False
        with suppress(httpx.HTTPError):
            good = client.get(f"{url}/health").is_success
        sent.append([began, float(good)])
        if not good:
            time.sleep(0.1)
    return {"sent": sent, "changes": []}


Told = dict[str, list[dict[str, Any]]]
"""What each slot told, of the service in trouble and of the calm one."""


def fleet(guard: bool, slots: int, recovery: float) -> tuple[Told, float]:
    """Run the slots through an outage; return what each told, and when the outage began."""
    troubled, calm = (metadata_service.create_app("service") for _ in range(2))
    faults = controls_of(troubled).faults
    controls_of(calm).faults.add(Latency(seconds=ANSWER_SECONDS))
    faults.add(Latency(seconds=ANSWER_SECONDS))
    with private_redis() as one, private_redis() as other, running(troubled) as first, running(calm) as second:
        places = {TROUBLED: (first, one.url), CALM: (second, other.url)}  # they must not share a circuit
        members = {
            name: [_started(place, guard, recovery) for _ in range(slots)] for name, place in places.items()
        }
        everybody = [*members[TROUBLED], *members[CALM]]
        try:
            for process in everybody:
                assert process.stdout  # noqa: S101 - for the type checker
                process.stdout.readline()
            for process in everybody:
                assert process.stdin  # noqa: S101 - for the type checker
                process.stdin.write("go\n")
                process.stdin.flush()
            time.sleep(SETTLING + NORMAL)
            began = time.monotonic()
            faults.clear()
            faults.add(Status(code=502))
            time.sleep(OUTAGE)
            faults.clear()
            faults.add(Latency(seconds=ANSWER_SECONDS))
            told = {name: [_told(process) for process in group] for name, group in members.items()}
        finally:
            for process in everybody:
                process.kill()
                process.wait()
    return told, began


def _told(process: subprocess.Popen[str]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(process.communicate()[0])
    return told


def _started(place: tuple[str, str], guard: bool, recovery: float) -> subprocess.Popen[str]:
    ends_in = SETTLING + NORMAL + OUTAGE + recovery + AFTER
    arguments = ["slot", *place, str(recovery), str(ends_in), str(guard)]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.recovery", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def slot(url: str, redis_url: str, recovery: float, ends_in: float, *, guard: bool) -> None:
    """Be one of the processes."""
    print("ready", flush=True)
    sys.stdin.readline()
    ends = time.monotonic() + ends_in
    told = guarded_slot(url, redis_url, recovery, ends) if guard else unprotected_slot(url, ends)
    print(json.dumps(told), flush=True)


def rate(times: Sequence[float], start: float, seconds: float) -> float:
    """Return how many a second there were from `start` on."""
    return sum(start <= at < start + seconds for at in times) / seconds


def steps(start: float, end: float, step: float) -> list[float]:
    """Return instants from `start` up to `end`."""
    return [start + number * step for number in range(int((end - start) / step))]


def judged(who: str, told: Told, outage: float, recovery: float) -> tuple[Row, dict[str, Any]]:
    """Sum up one fleet, and give what is to be drawn: seconds from the outage's beginning."""
    sent = sorted(at for one in told[TROUBLED] for at, _ in one["sent"])
    good = sorted(at for one in told[TROUBLED] for at, well in one["sent"] if well)
    calm = sorted(at for one in told[CALM] for at, _ in one["sent"])
    changes = sorted(change for one in told[TROUBLED] for change in one["changes"])
    last = outage + OUTAGE + recovery + AFTER - 2 * WINDOW
    share = rate(good, outage - NORMAL, NORMAL) / rate(calm, outage - NORMAL, NORMAL)  # about 1

    usual = rate(calm, outage - NORMAL, last + NORMAL - outage)

    def normal(at: float) -> float:
        return share * rate(calm, at, WINDOW)

    def compared(instants: Sequence[float]) -> list[float]:
        return [at for at in instants if normal(at)]  # where nobody did anything, there is nothing to compare with

    opened = next((at for at, state in changes if state == "open"), outage)
    due = opened + recovery if changes else outage + OUTAGE
    since_due = compared(steps(due, last, 0.05))
    back = next((at for at in since_due if rate(good, at, WINDOW) >= ENOUGH * normal(at)), None)
    watched = steps(outage, last, SHORT)
    shut_until = next((at for at, state in changes if state == "half_open"), outage + OUTAGE)
    row = {
        "who": who,
        "normal a second": round(rate(good, outage - NORMAL, NORMAL), 1),
        "sent while it failed or was shut out": sum(opened + 0.2 < at < shut_until for at in sent),
        "back after s": None if back is None else round(back - due, 2),
        "peak to normal": round(max(rate(sent, at, WINDOW) / normal(at) for at in compared(watched)), 2),
        "disturbed": sum(rate(calm, at, WINDOW) < DISTURBED * usual for at in watched),
        "transitions": len(changes),
    }
    instants = steps(outage - NORMAL, last, SHORT)
    drawn = {
        "sent": [[round(at - outage, 2), rate(sent, at, SHORT)] for at in instants],
        "calm": [[round(at - outage, 2), rate(calm, at, SHORT)] for at in instants],
        "changes": [[round(at - outage, 2), state] for at, state in changes],
    }
    return row, drawn


def measure(slots: int, recovery: int) -> Figures:
    """Have both fleets live through the same outage."""
    rows, drawn = [], {}
    for who in ("guarded", "unprotected"):
        told, outage = fleet(who == "guarded", slots, recovery)
        row, drawn[who] = judged(who, told, outage, recovery)
        rows.append(row)
    return {"rows": rows, "drawn": drawn, "outage": OUTAGE, "recovery": recovery}


if __name__ == "__main__":
    if sys.argv[1:2] == ["slot"]:
        slot(sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]), guard=sys.argv[6] == "True")
    else:
        harness.run(__doc__, measure, slots=8, recovery=3)
