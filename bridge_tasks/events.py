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
class LedgerSilent:
    """The ledger could not be asked or told; the work went on without it."""

    what: str
    error: str


@dataclass(frozen=True, slots=True)
class OutcomeRecorded:
    """The ledger knows how a task ended, `seconds` after whoever ran it began to tell."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RunSpared:
    """A message came whose task had ended, or was running elsewhere: it was not run. `why` is that state."""

    task_id: str
    why: str


@dataclass(frozen=True, slots=True)
class DeadLettersDropped:
    """There were more dead letters than are kept: the oldest were dropped."""

    count: int


@dataclass(frozen=True, slots=True)
class MessagesRestored:
    """A worker died, and what it held went back to the queues."""

    worker: str
    count: int


@dataclass(frozen=True, slots=True)
class MessageRequeued:
    """A message was lost, and was put back from its record. `seconds` is how long it was gone, at most."""

    task_id: str
    queue: str
    seconds: float


@dataclass(frozen=True, slots=True)
class JobsExpired:
    """Jobs waited beyond the greatest age, and are dead letters now."""

    count: int


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


@dataclass(frozen=True, slots=True)
class StoreLost:
    """Shared state went away: this process goes on with what it knows."""

    cause: str


@dataclass(frozen=True, slots=True)
class WriteUncopied:
    """`had` replicas of Redis have what was written, in time, of `wanted`."""

    had: int
    wanted: int


@dataclass(frozen=True, slots=True)
class CopiesChanged:
    """From now on too few replicas of Redis have what this process writes (`enough` is false), or again enough."""

    enough: bool


@dataclass(frozen=True, slots=True)
class StoreRegained:
    """Shared state is back, after `failures` tries that failed."""

    failures: int


@dataclass(frozen=True, slots=True)
class RetryRefused:
    """Try number `attempt` failed and the retry budget did not bear another; `cause` is what failed."""

    service: str
    operation: str
    attempt: int
    cause: str


@dataclass(frozen=True, slots=True)
class CallHeldBack:
    """A call was not sent, and not before `wait` seconds: service busy, rate limit or concurrency limit."""

    service: str
    operation: str
    wait: float
    cause: str


@dataclass(frozen=True, slots=True)
class CallDelayed:
    """A call was sent after it had waited for `seconds`, for the same reasons."""

    service: str
    operation: str
    seconds: float
    cause: str


@dataclass(frozen=True, slots=True)
class PatienceAsked:
    """A service asked to be left alone for `seconds`, of this process or of another one."""

    service: str
    seconds: float


@dataclass(frozen=True, slots=True)
class PaceLowered:
    """A service throttled: its configured rates are used at this `share` (0..1) for now."""

    service: str
    share: float


@dataclass(frozen=True, slots=True)
class StaleAnswerServed:
    """An answer past its time stood in for one that could not be had; `age` is in seconds."""

    service: str
    operation: str
    age: float
    cause: str


@dataclass(frozen=True, slots=True)
class AnswerShared:
    """A caller waited while another one asked the same, and was served that answer."""

    service: str
    operation: str


@dataclass(frozen=True, slots=True)
class CacheEntryDropped:
    """Something in the cache could not be read, and is gone."""

    cause: str


@dataclass(frozen=True, slots=True)
class CacheVoided:
    """Somebody made answers void: all (`*`), those with a tag (`=tag`), those about a prefix (`^prefix`)."""

    mark: str


@dataclass(frozen=True, slots=True)
class ReplicaEjected:
    """One replica of a service only failed, and is left alone for `seconds`."""

    service: str
    replica: str
    seconds: float
    cause: str


@dataclass(frozen=True, slots=True)
class ReplicasChanged:
    """A service's name stands for other addresses than before; `replicas` is how many."""

    host: str
    replicas: int


@dataclass(frozen=True, slots=True)
class NameLookupFailed:
    """A service's name could not be looked up: what was known of it before holds."""

    host: str
    cause: str


@dataclass(frozen=True, slots=True)
class RequestHedged:
    """A read was sent twice, the second time after `delay` seconds; `won` if that one gave the answer."""

    service: str
    operation: str
    delay: float
    won: bool


@dataclass(frozen=True, slots=True)
class CircuitFollowed:
    """This process learnt that a shared circuit changed; whoever made the change tells `CircuitChanged`."""

    name: str
    old: str
    new: str
    cause: str


@dataclass(frozen=True, slots=True)
class ProcessSteppedAside:
    """Only this process sees a service fail: it leaves it alone for `seconds`, and the others go on."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class QueuePaused:
    """This worker takes nothing from `queue`: its service's circuit is not closed, and `cause` is why.

    `seconds` is when the service will be tried again; None where people hold the circuit open.
    """

    queue: str
    circuit: str
    state: str
    cause: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class QueueResumed:
    """This worker takes from `queue` again what it can, after a pause of `seconds`."""

    queue: str
    circuit: str
    cause: str
    seconds: float


@dataclass(frozen=True, slots=True)
class MessageDropped:
    """A message was not run: it is none that a worker reads, or asks for what nobody here knows."""

    queue: str
    field: str
    reason: str
    job: str | None


Event = (
    RequestFinished
    | RetryScheduled
    | CircuitChanged
    | CacheAnswered
    | AnswerDegraded
    | JobFinished
    | StoreLost
    | WriteUncopied
    | CopiesChanged
    | StoreRegained
    | StaleAnswerServed
    | AnswerShared
    | CacheEntryDropped
    | CacheVoided
    | RetryRefused
    | CallHeldBack
    | CallDelayed
    | PatienceAsked
    | PaceLowered
    | ReplicaEjected
    | ReplicasChanged
    | NameLookupFailed
    | RequestHedged
    | CircuitFollowed
    | ProcessSteppedAside
    | LedgerSilent
    | OutcomeRecorded
    | RunSpared
    | DeadLettersDropped
    | MessagesRestored
    | MessageRequeued
    | JobsExpired
    | QueuePaused
    | QueueResumed
    | MessageDropped
)
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
