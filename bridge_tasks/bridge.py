"""What an orchestrator imports: submit canvases, wait for jobs, see how they do."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from celery.canvas import Signature
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.result import AsyncResult

from bridge_tasks import correlation
from bridge_tasks.app import app
from bridge_tasks.messages import HEADER

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: with a `result`, or with an `error`."""

    job: "Job"
    result: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted piece of work. `id` is the id of its last task; `correlation_id` finds all of them."""

    id: str
    correlation_id: str | None

    @property
    def state(self) -> str:
        """Celery's state: PENDING, RETRY, SUCCESS, FAILURE or REVOKED."""
        return str(self._handle.state)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the job and return its result.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            BridgeError: the job failed.
            TimeoutError: it has not ended yet.
        """
        try:
            return self._handle.get(timeout=timeout)
        except ResultTimeoutError:
            raise TimeoutError(f"job {self.id} has not ended after {timeout} s") from None

    def cancel(self) -> None:
        """Have workers drop the job if it has not begun."""
        self._handle.revoke()

    @property
    def _handle(self) -> "AsyncResult[Any]":
        return AsyncResult(self.id, app=app)


class Bridge:
    """The door for synchronous programs."""

    def submit(self, work: Signature[Any], *, correlation_id: UUID | str | None = None) -> Job:
        """Send a signature or canvas to the queue.

        Args:
            work: what `bridge_tasks.workflows` or a task's `.s(...)` built.
            correlation_id: for work that carries none yet.

        Raises:
            InvalidRequest: an argument is wrong; nothing was sent.
            kombu.exceptions.OperationalError: the broker is out of reach.
        """
        with correlation.bound(correlation_id):
            carried = _carried(work) or correlation.ensure()
            with correlation.bound(carried):
                sent = work.apply_async()
        return Job(str(sent.id), carried)

    def as_completed(self, jobs: Iterable[Job], timeout: float | None = None) -> Iterator[Outcome]:
        """Give each job's outcome as it ends, in that order; one poll of the backend serves all of them.

        Raises:
            TimeoutError: some have not ended after `timeout` seconds.
        """
        waiting = {job.id: job for job in jobs}
        ends = None if timeout is None else time.monotonic() + timeout
        while waiting:
            for task_id, meta in _finished(list(waiting)):
                yield _outcome(waiting.pop(task_id), meta)
            if waiting and ends is not None and time.monotonic() > ends:
                raise TimeoutError(f"{len(waiting)} jobs have not ended after {timeout} s")


def _carried(work: Signature[Any]) -> str | None:
    """The correlation id that a builder put on the work's first step."""
    steps = getattr(work, "tasks", None) or [work]
    found = (steps[0].options.get("headers") or {}).get(HEADER)
    return correlation.parse(found) if found is not None else None


def _finished(ids: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """One round trip for many results; waits a moment where none is there."""
    yield from app.backend.get_many(ids, interval=_POLL_SECONDS, max_iterations=1)  # type: ignore[attr-defined] # Redis's backend has it


def _outcome(job: Job, meta: dict[str, Any]) -> Outcome:
    if meta["status"] == "SUCCESS":
        return Outcome(job, result=meta["result"])
    return Outcome(job, error=meta["result"])
