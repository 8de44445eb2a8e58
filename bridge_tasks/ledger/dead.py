"""Which dead letters somebody means. Pure."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from bridge_tasks.errors import BridgeError, JobFailed
from bridge_tasks.ledger.envelope import PRIORITY_SEPARATOR
from bridge_tasks.ledger.records import DeadLetter

_OURS = "bridge."


@dataclass(frozen=True, slots=True)
class Wanted:
    """What dead letters have in common; what is not given, all have.

    Attributes:
        task: its name, with or without `bridge.`, as a pattern (`*`, `?`).
        error: the name of the error's class, or of one above it; of an error that is not ours, its own.
        correlation_id: what it travelled with.
        queue: where its message waited.
        subject: what it is about, as a pattern: `*/docs/*.md`.
        since: seconds since the epoch; it failed then or later.
        until: seconds since the epoch; it failed before.
    """

    task: str | None = None
    error: str | None = None
    correlation_id: str | None = None
    queue: str | None = None
    subject: str | None = None
    since: float | None = None
    until: float | None = None

    def means(self, letter: DeadLetter) -> bool:
        """Say whether a dead letter is one of those."""
        record, ended = letter.record, letter.record.ended or 0.0
        return (
            (self.task is None or _named(record.task, self.task))
            and (self.error is None or self.error in names_of(letter.error))
            and self.correlation_id in (None, record.correlation_id)
            and self.queue in (None, queue_of(record.queue))
            and (self.subject is None or fnmatchcase(record.subject, self.subject))
            and (self.since is None or ended >= self.since)
            and (self.until is None or ended < self.until)
        )


def names_of(error: BridgeError) -> tuple[str, ...]:
    """Return the names by which an error is found, its own first."""
    known = tuple(kind.__name__ for kind in type(error).__mro__ if issubclass(kind, BridgeError))
    return (error.cause, *known) if type(error) is JobFailed and error.cause else known


def queue_of(name: str | None) -> str | None:
    """Return a queue's own name, of the name of one of its lists."""
    return None if name is None else name.partition(PRIORITY_SEPARATOR)[0]


def _named(task: str, pattern: str) -> bool:
    return fnmatchcase(task, pattern) or fnmatchcase(task.removeprefix(_OURS), pattern)
