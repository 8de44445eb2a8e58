"""What the ledger says before a task runs, and is told when it ended. For messages that a worker holds.

Before, an unreachable ledger is no reason not to work: the message is there, and services are asked once per key.
(With another broker than the ledger's Redis, it is: there may be a copy of the message, and only a claim tells.)
After, it is told for as long as a restart of Redis takes: an end that nobody knows of would be worked for again.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from celery.exceptions import Ignore, Reject

from bridge_tasks import events
from bridge_tasks.errors import BridgeError, JobExpired, JobFailed
from bridge_tasks.ledger import Claim, Outcome
from bridge_tasks.ledger.workers import this_worker
from bridge_tasks.messages import rank_of
from bridge_tasks.runtime import current
from bridge_tasks.settings import load

T = TypeVar("T")

LEASE_MARGIN = 40.0
"""Seconds beyond a run's deadline after which it is not running: Celery's hard limit lies 30 above it."""

_TELL_SECONDS = 60.0
_PAUSE_SECONDS = 0.5


def claim(request: Any) -> Claim:
    """Ask whether this message is to be run.

    Args:
        request: Celery's, of the task that is about to run.

    Raises:
        Ignore: somebody else runs it, or nobody is to.
        Reject: nobody can tell; it goes back into its queue.
        JobExpired: it is too old.
    """
    runtime = current()
    lease = load().task.deadline + LEASE_MARGIN
    headers = {**(request.headers or {}), **{name: request.get(name) for name in _COUNTS}}

    rabbit = load().rabbit_broker
    said = _insisted(
        "begin",
        lambda: runtime.run(runtime.begun.begin(request.id, rank_of(headers), this_worker(), lease)),
        seconds=_TELL_SECONDS if rabbit else 0.0,
    )
    if said is None and rabbit:
        raise Reject("the ledger is away", requeue=True)
    if said is None:
        return Claim("run")
    if said.verdict == "old":
        raise JobExpired(
            f"the job did not end within {load().ledger.max_age:.0f} s (BRIDGE_LEDGER__MAX_AGE)", "age"
        )
    if said.verdict in ("busy", "failed", "cancelled"):
        events.emit(events.RunSpared(request.id, said.verdict))
        raise Ignore
    if said.verdict == "succeeded":
        events.emit(events.RunSpared(request.id, said.verdict))
    return said


def note(task_id: str, outcome: Outcome) -> None:
    """Tell the ledger how a task ended."""
    runtime = current()
    began = time.monotonic()
    dropped = _insisted("finish", lambda: runtime.run(runtime.ledger.finish(task_id, outcome)))
    events.emit(events.OutcomeRecorded(time.monotonic() - began))
    if dropped:
        events.emit(events.DeadLettersDropped(dropped))


def release(task_id: str) -> None:
    """Tell the ledger that a task that was to be put back could not be: it has not failed, its message is lost."""
    runtime = current()
    _insisted("release", lambda: runtime.run(runtime.ledger.release(task_id)))


def _insisted(what: str, tell: Callable[[], T], seconds: float = _TELL_SECONDS) -> T | None:
    """Tell or ask the ledger something, by default for as long as a restart of Redis takes; None if in vain."""
    until = time.monotonic() + seconds
    while True:
        try:
            return tell()
        except redis.RedisError as error:
            if time.monotonic() >= until:
                events.emit(events.LedgerSilent(what, type(error).__name__))
                return None
            time.sleep(_PAUSE_SECONDS)


def hand_over(task_id: str, heirs: Sequence[tuple[str, str]]) -> None:
    """Tell the ledger that other tasks (their ids and names) take this one's place."""
    runtime = current()
    try:
        runtime.run(runtime.ledger.hand_over(task_id, heirs))
    except redis.RedisError as error:
        events.emit(events.LedgerSilent("hand over", type(error).__name__))


def failure(error: BaseException) -> Outcome:
    """Return a failed task's outcome; of an error that is not ours, nothing but its name is kept."""
    ours = error if isinstance(error, BridgeError) else JobFailed(type(error).__name__, type(error).__name__)
    return Outcome("failed", error=ours)


_COUNTS = ("retries", "replaced_task_nesting")
