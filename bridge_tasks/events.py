"""Facts about what happened, and who listens.

A fact is a frozen record in the past tense; whoever causes it calls `emit` and knows no listener. Logs,
metrics and traces are listeners, one file each (`observability/`). A listener must never raise into the
work it watches: what it raises is logged and dropped.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """One HTTP exchange ended with a `status`, or with the name of an `error` where nothing came back."""

    service: str
    operation: str
    method: str
    host: str
    status: int | None
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """A try failed and another follows after `delay` seconds. `attempt` counts from 1."""

    service: str
    operation: str
    attempt: int
    delay: float
    cause: str


@dataclass(frozen=True, slots=True)
class CircuitChanged:
    """A circuit breaker moved from one state to another."""

    name: str
    old: str
    new: str
    cause: str


@dataclass(frozen=True, slots=True)
class CacheAnswered:
    """The result cache was asked: `hit` says what came of it."""

    service: str
    operation: str
    hit: bool


@dataclass(frozen=True, slots=True)
class AnswerDegraded:
    """A fallback, or a service's own emergency answer, stands where a real answer should be."""

    service: str
    operation: str
    cause: str


@dataclass(frozen=True, slots=True)
class JobFinished:
    """A task of ours reached an end in a worker; `outcome` is succeeded, failed or retried."""

    task: str
    task_id: str
    outcome: str
    seconds: float
    attempt: int
    error: str | None
    subject: str | None


Event = RequestFinished | RetryScheduled | CircuitChanged | CacheAnswered | AnswerDegraded | JobFinished
Listener = Callable[[Event], None]

_listeners: tuple[Listener, ...] = ()


def subscribe(listener: Listener) -> Callable[[], None]:
    """Have `listener` called with every fact of this process; return the call that ends it. Idempotent."""
    global _listeners  # noqa: PLW0603 - an immutable tuple swapped whole needs no lock to read
    if listener not in _listeners:
        _listeners = (*_listeners, listener)

    def unsubscribe() -> None:
        global _listeners  # noqa: PLW0603 - see above
        _listeners = tuple(one for one in _listeners if one is not listener)

    return unsubscribe


def emit(event: Event) -> None:
    """Tell every listener; a listener's failure costs a log line, never the caller."""
    for listener in _listeners:
        try:
            listener(event)
        except Exception:  # noqa: BLE001 - a listener is anybody's code, and never the caller's trouble
            _log.exception("a listener failed on %s", type(event).__name__)
