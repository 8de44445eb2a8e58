"""What an orchestrator imports: submit canvases, wait for jobs, see how they do."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from celery.backends.asynchronous import E_RETRY_LIMIT_EXCEEDED  # type: ignore[attr-defined] # absent from the stubs
from celery.canvas import Signature
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.result import AsyncResult, GroupResult
from kombu.exceptions import OperationalError

from bridge_tasks import correlation
from bridge_tasks.app import app
from bridge_tasks.messages import HEADER

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted piece of work: a task, a chain (whose id is its last task's), a chord or a group.

    `correlation_id` finds all its tasks; None where the members of a group carry different ones.
    """

    id: str
    correlation_id: str | None
    handle: "AsyncResult[Any] | GroupResult" = field(repr=False, compare=False)
    """Celery's own view of it."""

    @property
    def state(self) -> str:
        """Celery's word: PENDING, RETRY, SUCCESS, FAILURE or REVOKED."""
        if isinstance(self.handle, GroupResult):
            return "FAILURE" if self.handle.failed() else "SUCCESS" if self.handle.successful() else "PENDING"
        return str(self.handle.state)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the job and return its result; a group's is the list of its members'.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            BridgeError: the job failed.
            TimeoutError: it has not ended yet.
        """
        try:
            return self.handle.get(timeout=timeout)
        except ResultTimeoutError:
            raise TimeoutError(f"job {self.id} has not ended after {timeout} s") from None

    def cancel(self) -> None:
        """Have workers drop what has not begun; of a chain, every step."""
        step: Any = self.handle
        while step is not None:
            step.revoke()
            step = step.parent


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: with a `result`, or with an `error`."""

    job: Job
    result: Any = None
    error: Exception | None = None


class Bridge:
    """The door for synchronous programs."""

    def submit(self, work: Signature[Any], *, correlation_id: UUID | str | None = None) -> Job:
        """Send a signature or canvas to the queue.

        Args:
            work: what `bridge_tasks.workflows` or a task's `.s(...)` built.
            correlation_id: for steps that carry none yet; by default the one bound here, else a new one.

        Raises:
            InvalidRequest: an argument of what can begin now is wrong; nothing was sent. (Of a later step in a
                chain only its turn can tell: it fails then, and the job with it.)
            kombu.exceptions.OperationalError: the broker, or the result backend, is out of reach.
        """
        _check_members(work)
        carried = set(_carried(work))
        default = correlation_id or correlation.current() or next(filter(None, carried), correlation.ensure())
        with correlation.bound(default) as bound:
            sent = _sent(work)
        ids = {cid or bound for cid in carried}
        return Job(str(sent.id), ids.pop() if len(ids) == 1 else None, sent)

    def as_completed(self, jobs: Iterable[Job], timeout: float | None = None) -> Iterator[Outcome]:
        """Give each job's outcome as it ends, in that order; one poll of the backend serves all single jobs.

        Raises:
            TimeoutError: some have not ended after `timeout` seconds.
        """
        waiting = {job.id: job for job in jobs}
        ends = None if timeout is None else time.monotonic() + timeout
        while waiting:
            for outcome in _ended(waiting):
                del waiting[outcome.job.id]
                yield outcome
            if waiting and ends is not None and time.monotonic() > ends:
                raise TimeoutError(f"{len(waiting)} jobs have not ended after {timeout} s")


def _check_members(work: Signature[Any]) -> None:
    """Check all that a group begins with, before its first member is sent. Alone, a task checks itself."""
    members = getattr(work, "tasks", None) or []
    for member in members[:1] if work.task == "celery.chain" else members:
        task: Any = app.tasks.get(member.task)
        if getattr(member, "tasks", None):
            _check_members(member)
        elif hasattr(task, "check"):
            task.check(member.args, member.kwargs)


def _sent(work: Signature[Any]) -> Any:
    try:
        return work.apply_async()
    except RuntimeError as error:
        if str(error) == E_RETRY_LIMIT_EXCEEDED:
            raise OperationalError("the result backend is out of reach; nothing was sent") from error
        raise


def _carried(work: Signature[Any]) -> Iterator[str | None]:
    """The correlation id of every task in a canvas; None for one that has none yet."""
    members = getattr(work, "tasks", None)
    if members:
        for member in members:
            yield from _carried(member)
    else:
        found = (work.options.get("headers") or {}).get(HEADER)
        yield correlation.parse(found) if found is not None else None


def _ended(waiting: dict[str, Job]) -> list[Outcome]:
    """What has ended by now, found in one round trip; waits a moment where not everything has."""
    groups = {job_id: job for job_id, job in waiting.items() if isinstance(job.handle, GroupResult)}
    outcomes = [_group_outcome(job) for job in groups.values() if job.handle.ready()]
    singles = waiting.keys() - groups.keys()
    if not singles:
        time.sleep(0 if outcomes else _POLL_SECONDS)
        return outcomes
    # get_many sleeps once between look-ups; Redis's backend has it, the abstract one does not.
    known = app.backend.get_many(singles, interval=_POLL_SECONDS, max_iterations=1)  # type: ignore[attr-defined]
    return outcomes + [_outcome(waiting[job_id], meta) for job_id, meta in known]


def _outcome(job: Job, meta: dict[str, Any]) -> Outcome:
    succeeded = meta["status"] == "SUCCESS"
    return Outcome(job, result=meta["result"]) if succeeded else Outcome(job, error=meta["result"])


def _group_outcome(job: Job) -> Outcome:
    try:
        return Outcome(job, result=job.handle.get())
    except Exception as error:  # noqa: BLE001 - whatever a member raised is the group's outcome
        return Outcome(job, error=error)
