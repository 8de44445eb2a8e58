"""The shapes of the ledger, to and from what Redis holds. Pure: no clock, no I/O.

    waiting ──> running ──> succeeded
       ^          │  └────> failed ──(replay)──> waiting
       └─(retry)──┘
    waiting ──────────────> cancelled

A job of several tasks (a chain, a chord, a group) has a record too. Its *parts* are the tasks that end it: one of
a chain, one per member of a group; its outcome is theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import orjson

from bridge_tasks import errors
from bridge_tasks.errors import BridgeError, JobFailed
from bridge_tasks.ledger.envelope import PRIORITY_SEPARATOR

State = Literal["waiting", "running", "succeeded", "failed", "cancelled"]
OVER: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})

MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that is being submitted, as its first message tells the ledger.

    Attributes:
        job: its id, that of its last task where there is one.
        key: its idempotency key: the same for the same work.
        lasting: whether a success of earlier stands for it; if not, only a job under way does.
        force: to do it in any case.
        parts: the ids of the tasks that end it.
        title: the task, or what kind of canvas it is.
        whole: whether its first message is all of it that is sent now.
        file: a digest of the path of the file that it is about, or "".
        steps: of a job of several tasks, the id and the name of each, in the order in which they were written.
    """

    job: str
    key: str
    lasting: bool
    force: bool
    parts: tuple[str, ...]
    title: str
    whole: bool = True
    file: str = ""
    steps: tuple[tuple[str, str], ...] = ()

    def arguments(self) -> tuple[str, ...]:
        """What `put.lua` takes."""
        return (
            self.job,
            self.key,
            "1" if self.lasting else "0",
            "1" if self.force else "0",
            orjson.dumps(self.parts).decode(),
            self.title,
            self.file,
            "1" if self.whole else "0",
            orjson.dumps(self.steps).decode() if self.steps else "",
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: with a `result` (plain JSON), or with an `error`."""

    state: State
    result: Any = None
    error: BridgeError | None = None

    def dumps(self) -> str:
        """Write it down; what JSON does not know becomes text."""
        if self.error is None:
            return orjson.dumps({"result": self.result}, default=str).decode()
        told = {"type": type(self.error).__name__, "args": list(self.error.args)}
        return orjson.dumps({"error": told}, default=str).decode()

    @classmethod
    def loads(cls, state: State, text: str | bytes) -> Self:
        """Read it; an error whose type nobody knows any more is a `JobFailed` that names it."""
        told = orjson.loads(text) if text else {}
        if state == "succeeded":
            return cls(state, result=told.get("result"))
        return cls(state, error=_error(state, told.get("error")))


def _error(state: State, told: Any) -> BridgeError:
    if state == "cancelled" and not told:
        return errors.JobCancelled("the job was cancelled before it ended")
    name, args = (told or {}).get("type", "?"), (told or {}).get("args", ())
    known = getattr(errors, name, None)
    if isinstance(known, type) and issubclass(known, BridgeError):
        try:
            return known(*args)
        except TypeError:
            pass  # its arguments were others once
    return JobFailed(str(args[0]) if args else name, name)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One record.

    Attributes:
        id: of the task or job.
        state: see the module.
        task: its name, or what kind of canvas it is.
        correlation_id: what it travels with.
        subject: what it is about (a path, a question), never content.
        accepted: when it was submitted; seconds since the epoch, as all times here, on Redis's clock.
        queued: when its message was put into the queue last.
        begun: when a worker began it last.
        ended: when it ended.
        runs: how often a worker began it.
        requeued: how often a lost message was put back.
        queue: where its message waits.
        job: the job that it is a step of, if it is one.
        parts: the tasks that end it, of a job of several.
        outcome: how it ended.
        title: of a job of several tasks, what kind of canvas it is.
        steps: of such a job, the id and the name of each task; of a task that put others in its place, theirs.
    """

    id: str
    state: State
    task: str
    correlation_id: str
    subject: str
    accepted: float
    queued: float | None = None
    begun: float | None = None
    ended: float | None = None
    runs: int = 0
    requeued: int = 0
    queue: str | None = None
    job: str | None = None
    parts: tuple[str, ...] = ()
    outcome: Outcome | None = None
    title: str = ""
    steps: tuple[tuple[str, str], ...] = ()

    @classmethod
    def loads(cls, name: str, fields: Mapping[str, str]) -> Self:
        """Read what Redis holds."""
        state: State = fields.get("state", "waiting")  # type: ignore[assignment] # written by our scripts only
        return cls(
            id=name,
            state=state,
            task=fields.get("task", ""),
            correlation_id=fields.get("correlation_id", ""),
            subject=fields.get("subject", ""),
            accepted=_seconds(fields.get("accepted")) or 0.0,
            queued=_seconds(fields.get("queued")),
            begun=_seconds(fields.get("begun")),
            ended=_seconds(fields.get("ended")),
            runs=int(fields.get("runs", 0)),
            requeued=int(fields.get("requeued", 0)),
            queue=fields["queue"].partition(PRIORITY_SEPARATOR)[0] if "queue" in fields else None,
            job=fields.get("job"),
            parts=tuple(orjson.loads(fields["parts"])) if fields.get("parts") else (),
            outcome=Outcome.loads(state, fields.get("outcome", "")) if state in OVER else None,
            title=fields.get("title") or fields.get("task", ""),
            steps=tuple((step, task) for step, task in orjson.loads(fields.get("steps") or "[]")),
        )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A task that failed for good.

    Attributes:
        record: what is known of it.
        kept: whether there is a message to be sent again.
        joined: whether a chord was to join its result with others, which are gone: only its job can be done again.
    """

    record: JobRecord
    kept: bool
    joined: bool = False

    @classmethod
    def loads(cls, name: str, fields: Mapping[str, str]) -> Self | None:
        """Read what Redis holds; None where it is no dead letter."""
        if fields.get("state") != "failed" or "queue" not in fields:
            return None
        return cls(JobRecord.loads(name, fields), kept="kept" in fields, joined="joined" in fields)

    @property
    def replayable(self) -> bool:
        """Whether it can be sent again."""
        return self.kept and not self.joined

    @property
    def error(self) -> BridgeError:
        """Why."""
        outcome = self.record.outcome
        return outcome.error if outcome and outcome.error else JobFailed("it is not known why", "?")


def pairs(flat: Sequence[Any]) -> dict[str, str]:
    """Make a dict of what HGETALL answers on either protocol."""
    if isinstance(flat, Mapping):
        return {_text(key): _text(value) for key, value in flat.items()}
    texts = [_text(value) for value in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _seconds(microseconds: str | None) -> float | None:
    return int(microseconds) / MICROSECONDS if microseconds else None
