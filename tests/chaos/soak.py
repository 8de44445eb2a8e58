"""Wage a campaign and judge it: `python -m tests.chaos.soak --jobs 5000 --kills 100 --restarts 5`.

The judge is the service's own log of what it did, and what the ledger says of each accepted job: every one has
ended, has succeeded exactly if its file is stamped, and no file is stamped twice. Ends with one line; the exit
status is 1 if anything is wrong, and then the logs are kept and each bad job is named.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bridge_tasks import runtime
from bridge_tasks.app import app
from bridge_tasks.settings import load
from tests.chaos import plain
from tests.chaos.campaign import Accepted, Campaign, Plan
from tests.chaos.sides import AWAY, Ours, Plain, Services, Side
from tests.workers import aim

OVER = frozenset({"succeeded", "failed", "cancelled"})

SETTLE_SECONDS = {"ours": 90.0, "plain": 3.0 * plain.VISIBILITY}
"""For how long nothing may happen before what is open is given up. Plain Celery needs its visibility timeout."""

_PATIENCE = 30.0
"""Seconds after which a worker that was killed should long be known to be dead."""

INDEXES = ("bridge:outbox", "bridge:open:*", "bridge:unacked*", "bridge:worker:*", "bridge:left:*", "unacked*")

SHORT = ("--jobs", "300", "--kills", "10", "--restarts", "1", "--pace", "1.5", "--json")
"""What a minute is enough for."""

_TOLD = 20
"""Bad jobs of a kind that are told in full."""


@dataclass(slots=True)
class Verdict:
    """What is wrong, job by job.

    Attributes:
        lost: accepted, and never ended; or the service never did what the job says it did.
        twice: done more than once.
        contrary: stamped though it failed.
        failed: neither stamped nor said to be: a service said no, or nonsense. Nothing is wrong with that.
        leftovers: what is in the ledger's indexes when nothing is to be done.
    """

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    contrary: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is."""
        return not (self.lost or self.twice or self.contrary or self.leftovers)


def judge(accepted: list[Accepted], states: dict[str, str], effects: dict[str, int]) -> Verdict:
    """Compare what was accepted with what was done. Pure."""
    verdict = Verdict()
    for job in accepted:
        done = effects.get(job.path, 0)
        told = f"{job.name} ({job.kind}, {job.path}): {states[job.name]}, done {done} times"
        if states[job.name] not in OVER or (states[job.name] == "succeeded" and not done):
            verdict.lost.append(told)
        elif states[job.name] != "succeeded":
            (verdict.contrary if done else verdict.failed).append(told)
        if done > 1:
            verdict.twice.append(told)
    return verdict


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, wage the campaign, judge; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--pace", type=float, default=2.5, help="seconds between two kills, on average")
    parser.add_argument(
        "--seed", type=int, default=None, help="of all chance; by default a new one, which is told"
    )
    parser.add_argument(
        "--fsync", choices=("always", "everysec"), default="always", help="how Redis keeps its file"
    )
    parser.add_argument(
        "--side", choices=("ours", "plain"), default="ours", help="plain: Celery alone, its safest"
    )
    parser.add_argument(
        "--broker", choices=("redis", "amqp"), default="redis", help="amqp: a RabbitMQ, killed as often as Redis"
    )
    parser.add_argument(
        "--sentinel", action="store_true", help="Redis with replicas and sentinels: its master is killed, for good"
    )
    parser.add_argument("--calm", action="store_true", help="let the services behave: nothing but kills")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON before the last line")
    parser.add_argument("--short", action="store_true", help=f"the same as {' '.join(SHORT)}")
    given = parser.parse_args(arguments)
    if given.short:
        given = parser.parse_args(SHORT, given)
    seed = given.seed if given.seed is not None else int.from_bytes(os.urandom(3))
    if given.side == "plain" and given.broker != "redis":
        parser.error("plain Celery is measured on Redis")
    plan = Plan(
        given.jobs,
        given.kills,
        given.restarts,
        pace=given.pace,
        calm=given.calm,
        sentinel=given.sentinel,
        fsync=given.fsync,
        broker=given.broker,
        seed=seed,
    )
    print(f"seed {seed}", flush=True)  # noqa: T201 - the person who runs it reads it
    return _run(plan, given.side, as_json=given.json)


def _run(plan: Plan, side_name: str, *, as_json: bool) -> int:
    side: Side = Ours() if side_name == "ours" else Plain()
    directory = Path(tempfile.mkdtemp(prefix="bridge-soak-"))
    campaign = Campaign(plan, side, directory)
    began = time.monotonic()
    try:
        services = campaign.set_up()
        with submitting(side, services):
            campaign.wage()
            waged = time.monotonic() - began
            states = settled(side, campaign.accepted, SETTLE_SECONDS[side_name])
            verdict = judge(campaign.accepted, states, campaign.effects())
            if side_name == "ours":
                _all_dead_are_known(campaign.living)
                campaign.retire()
                verdict.leftovers = leftovers()
            _report(side, verdict, directory)
    finally:
        campaign.close()
    counts = campaign.counts
    if as_json:
        figures = {
            **asdict(counts),
            "side": side_name,
            "broker": plan.broker,
            "fsync": plan.fsync,
            "calm": plan.calm,
            "sentinel": plan.sentinel,
            "seed": plan.seed,
            "accepted": len(campaign.accepted),
            "seconds": round(waged, 1),
            "settling": round(time.monotonic() - began - waged, 1),
            **{name: len(bad) for name, bad in asdict(verdict).items()},
        }
        print(json.dumps(figures))  # noqa: T201 - asked for
    redis = f"{counts.failovers} failovers" if plan.sentinel else f"{counts.restarts} restarts"
    line = f"{len(campaign.accepted):,} jobs, {counts.kills} kills, {redis}: "
    line += f"{len(verdict.lost)} lost, {len(verdict.twice)} stamped twice"
    if verdict.failed:
        line += f" ({len(verdict.failed)} failed, and say so)"
    if verdict.contrary or verdict.leftovers:
        line += f", {len(verdict.contrary)} with a wrong outcome, {len(verdict.leftovers)} left over"
    print(line, flush=True)  # noqa: T201 - the verdict
    return 0 if verdict.good and len(campaign.accepted) == plan.jobs else 1


@contextmanager
def submitting(side: Side, services: Services) -> Iterator[None]:
    """Let this process be the submitter of a side."""
    os.environ.update(side.environment(services))
    load.cache_clear()
    aim(app)
    plain.app.conf.update(broker_url=services.redis["BRIDGE_REDIS_URL"])
    plain.app.conf.update(result_backend=services.redis["BRIDGE_REDIS_URL"])
    try:
        yield
    finally:
        runtime.close()


def settled(side: Side, accepted: list[Accepted], patience: float) -> dict[str, str]:
    """Wait until all have ended, or nothing has happened for a while; returns how they stand."""
    states: dict[str, str] = {}
    waiting = {job.name for job in accepted}
    since = time.monotonic()
    while waiting and time.monotonic() < since + patience:
        try:
            now = side.states(waiting)
        except AWAY:
            continue
        states |= now
        ended = {name for name, state in now.items() if state in OVER}
        if ended:
            since = time.monotonic()
        waiting -= ended
        time.sleep(0.2)
    return states


def _all_dead_are_known(living: int) -> None:
    """Wait until the fleet has noticed whom it lost: one that held nothing when it was killed hurries nobody."""
    until = time.monotonic() + _PATIENCE
    with load().ledger_place.client() as client:
        while len(list(client.scan_iter("bridge:worker:*"))) > living and time.monotonic() < until:
            time.sleep(0.2)


def leftovers() -> list[str]:
    """What is left in the ledger's indexes once all workers have gone."""
    with load().ledger_place.client(decode_responses=True) as client:
        keys = [str(key) for pattern in INDEXES for key in client.scan_iter(pattern)]
        queues = [str(queue) for queue in client.smembers("bridge:queues")]
        return sorted(keys) + [queue for queue in queues if client.llen(queue)]


def _report(side: Side, verdict: Verdict, directory: Path) -> None:
    told: dict[str, Any] = asdict(verdict)
    for name, jobs in told.items():
        if name == "failed":
            continue
        for job in jobs[:_TOLD]:
            print(f"{name}: {job}")  # noqa: T201 - the report
            if name != "leftovers":
                print(f"    {side.record(job.split(' ')[0])}")  # noqa: T201 - the same
    if not verdict.good:
        print(f"logs and stamps: {directory}")  # noqa: T201 - the same


if __name__ == "__main__":
    sys.exit(main())
