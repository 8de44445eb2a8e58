"""What somebody should look at now, the worst first: in words, with the command that goes on from there. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bridge_tasks.cli.moments import lasting
from bridge_tasks.cli.screen import counted
from bridge_tasks.ledger.overview import LedgerOverview
from bridge_tasks.overview import Overview
from bridge_tasks.resilience.policy.breaker import Cause, Circuit, CircuitState, Manual
from bridge_tasks.resilience.policy.window import SECOND
from bridge_tasks.vitals import waits_for_workers

OLD_SECONDS = 300.0
"""What waits for longer is not only a burst."""

WHY: Final = {
    Cause.RUN: "calls failed in a row",
    Cause.RATE: "too many calls failed",
    Cause.SLOW: "too many calls were slow",
    Cause.RECOVERY: "being tried",
    Cause.PROBE_FAILED: "it was tried, and failed again",
    Cause.PROBES_LOST: "it was tried, and nobody heard the answer",
    Cause.PROBES_GOOD: "it is well again",
}
"""By cause, in words; any other is somebody's order."""


@dataclass(frozen=True, slots=True)
class Concern:
    """One of them.

    Attributes:
        what: what is wrong.
        do: what to type.
        bad: whether jobs fail or stand still; if not, they will.
    """

    what: str
    do: str
    bad: bool = True


def concerns(seen: Overview) -> list[Concern]:
    """Return them, the worst first."""
    if not seen.health.redis or seen.ledger is None:
        return [Concern("Redis is out of reach: nothing is known, and nothing goes on", "bridge-tasks check")]
    found = [*_of_fleet(seen), *_of_jobs(seen.ledger, seen.health.dead_letters)]
    return sorted(found, key=lambda concern: not concern.bad)


def _of_fleet(seen: Overview) -> Iterator[Concern]:
    health = seen.health
    if health.workers == ():
        yield Concern(waits_for_workers(health.waiting).capitalize(), "bridge-tasks worker")
    for service, circuit in seen.circuits.items():
        if circuit is not None and circuit.state is not CircuitState.CLOSED:
            yield _of_circuit(service, circuit, seen.taken)
    for queue in health.queues:
        if health.workers and queue.oldest_seconds is not None and queue.oldest_seconds > OLD_SECONDS:
            waits = f"{counted(queue.depth, 'job')} for up to {lasting(queue.oldest_seconds)}"
            do = "bridge-tasks health  # is it paused? if not, start one more worker"
            yield Concern(f"{queue.name} holds {waits}: workers do not keep up", do, bad=False)


def _of_jobs(ledger: LedgerOverview, dead_letters: int) -> Iterator[Concern]:
    lately = ledger.failed_lately
    if lately:
        yield Concern(f"{counted(lately, 'job')} failed for good within the last hour", "bridge-tasks dead list")
    for one in ledger.oldest:
        lasts_for = ledger.now - (one.record.begun or ledger.now)
        if one.record.state == "running" and lasts_for > OLD_SECONDS:
            what = f"{one.record.subject or one.record.title} is worked on for {lasting(lasts_for)}"
            yield Concern(what, f"bridge-tasks status {one.record.id}", bad=False)
    for run in ledger.runs:
        # A submitter is faster than workers: they have nothing left for long only where it is gone.
        if run.unsealed and run.total and not run.waiting and ledger.now - run.accepted > OLD_SECONDS:
            what = f"{run.title}: {counted(run.total, 'file')} sent, all ended, and not submitted to its end"
            yield Concern(what, f"bridge-tasks status {run.id}  # says how to go on", bad=False)
    if dead_letters > lately:
        what = f"{counted(dead_letters - lately, 'job')} failed for good earlier, and nobody has seen to it"
        yield Concern(what, "bridge-tasks dead list  # replay or drop them", bad=False)


def _of_circuit(service: str, circuit: Circuit, now: float) -> Concern:
    words = f"{service} is {told_state(circuit)} for {lasting(lasts(circuit, now))}: {reason(circuit)}"
    if circuit.manual is Manual.HELD:
        return Concern(f"{words}; its jobs wait", f"bridge-tasks breaker reset {service}")
    left = tries_in(circuit, now)
    tries = f"; tried again in {lasting(left)}" if left else ""
    return Concern(f"{words}{tries}", "bridge-tasks breaker list", bad=circuit.state is CircuitState.OPEN)


def told_state(circuit: Circuit) -> str:
    """Say how a service is treated, in words."""
    if circuit.manual is Manual.HELD:
        return "cut off by hand"
    return {CircuitState.OPEN: "cut off", CircuitState.HALF_OPEN: "on trial"}.get(circuit.state, "well")


def reason(circuit: Circuit) -> str:
    """Say why."""
    return WHY.get(circuit.cause, "somebody ordered it")


def lasts(circuit: Circuit, now: float) -> float:
    """Return since how many seconds it is so."""
    return max(0.0, now - circuit.changed_at / SECOND)


def tries_in(circuit: Circuit, now: float) -> float | None:
    """Return in how many seconds an open circuit is tried; None where it is not open, or held."""
    if circuit.state is not CircuitState.OPEN or circuit.manual is Manual.HELD:
        return None
    return max(0.0, circuit.open_for / SECOND - lasts(circuit, now))
