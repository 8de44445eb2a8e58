"""What an asyncio orchestrator imports: `Bridge`, awaitable. One Redis subscription serves all that is awaited.

Submitting is kombu's, which blocks: one thread at a time does it, and sends in one round trip what has come up
meanwhile. All else is this event loop's own. An awaiting task that is cancelled leaves nothing; its job goes on.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import UUID

from celery.canvas import Signature
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout

from bridge_tasks import correlation
from bridge_tasks.bridge import Bridge, Job, ask_services, found, what_to_look_at
from bridge_tasks.chunking import BulkRun
from bridge_tasks.errors import BridgeError, JobUnknown
from bridge_tasks.ledger import JobRecord, Outcome, keys
from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.loop_line import line
from bridge_tasks.runs import Run
from bridge_tasks.runtime import current
from bridge_tasks.submissions import address, fresh
from bridge_tasks.vitals import SystemHealth, look

T = TypeVar("T")

_NEWS_SECONDS = 1.0
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class AsyncJob:
    """A submitted piece of work. `await job` gives its result, or raises its error.

    Attributes:
        id: what `bridge-tasks status` takes.
        correlation_id: finds all its tasks; None where the members of a group carry different ones.
        parts: the tasks whose results are the job's.
        stands: whether it was there before: the same work had been submitted, and this is that job.
    """

    id: str
    correlation_id: str | None
    parts: tuple[str, ...] = ()
    stands: bool = False

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as `Job.result` has it
        """Wait for the job and return its result; a group's is the list of its members'.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            BridgeError: the job failed, or was cancelled.
            TimeoutError: it has not ended yet.
        """
        async with line() as mine:
            try:
                async with asyncio.timeout(timeout):
                    outcome = await mine.arrivals.outcome(self.id)
                    whole = await _retried(lambda: mine.ledger.all_of_it(self.id, self.parts, outcome))
            except TimeoutError:
                raise TimeoutError(f"job {self.id} has not ended after {timeout} s") from None
        if whole.error is not None:
            raise whole.error
        return whole.result

    async def record(self) -> JobRecord:
        """Return all that is known of it.

        Raises:
            JobUnknown: there is no record, or no longer.
        """
        async with line() as mine:
            known = await mine.ledger.find(self.id)
        if known is None:
            raise JobUnknown(f"there is no record of job {self.id}")
        return known

    async def state(self) -> str:
        """Return waiting, running, succeeded, failed or cancelled."""
        return (await self.record()).state

    async def cancel(self) -> bool:
        """Have what has not begun never begin; of a chain, every step to come. Whether there was any."""
        async with line() as mine:
            return await mine.ledger.cancel(self.id) == "cancelled"


@dataclass(frozen=True, slots=True)
class AsyncRun:
    """A bulk run that was submitted. `async for progress in run` follows it, `await run` waits for its end.

    Attributes:
        id: what `bridge-tasks watch` and `status` take.
        correlation_id: finds all its tasks.
    """

    id: str
    correlation_id: str

    def __await__(self) -> Generator[Any, None, RunProgress]:
        return self.wait().__await__()

    async def __aiter__(self) -> AsyncIterator[RunProgress]:
        """Give its progress as it changes, at least once a second, until it has ended."""
        async with line() as mine:
            changed = asyncio.Event()
            await mine.arrivals.follow(keys.RUN_NEWS + self.id, changed)
            try:
                while True:
                    changed.clear()
                    progress = await _retried(self.progress)
                    yield progress
                    if progress.done:
                        return
                    await _event_or_timeout(changed, _NEWS_SECONDS)
            finally:
                await mine.arrivals.unfollow(keys.RUN_NEWS + self.id, changed)

    async def progress(self) -> RunProgress:
        """Return how it stands.

        Raises:
            JobUnknown: there is no record, or no longer.
        """
        async with line() as mine:
            known = await mine.runs.progress(self.id)
        if known is None:
            raise JobUnknown(f"there is no record of run {self.id}")
        return known

    async def wait(self, timeout: float | None = None) -> RunProgress:  # noqa: ASYNC109 - as `Run.wait` has it
        """Wait for its end.

        Raises:
            TimeoutError: it has not ended after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                async for progress in self:  # noqa: B007 - the last one is meant
                    pass
        except TimeoutError:
            raise TimeoutError(f"run {self.id} has not ended after {timeout} s") from None
        return progress

    async def cancel(self) -> None:
        """Stop it: what is worked on ends soon, nothing else begins."""
        async with line() as mine:
            await mine.runs.stop(self.id)


@dataclass(frozen=True, slots=True)
class AsyncEnded:
    """How a job ended: with a `result`, or with an `error`."""

    job: AsyncJob
    result: Any = None
    error: BridgeError | None = None


class AsyncBridge:
    """The door for asyncio programs. In `async with`, it keeps its connections; without, each call opens them.

    All bridges of an event loop share one subscription.
    """

    def __init__(self) -> None:
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(line())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    @overload
    async def submit(
        self, work: BulkRun, *, correlation_id: UUID | str | None = None, force: bool = False
    ) -> AsyncRun: ...

    @overload
    async def submit(
        self, work: Signature[Any], *, correlation_id: UUID | str | None = None, force: bool = False
    ) -> AsyncJob: ...

    async def submit(
        self, work: Signature[Any] | BulkRun, *, correlation_id: UUID | str | None = None, force: bool = False
    ) -> AsyncJob | AsyncRun:
        """Send a signature, canvas or bulk run to the queue; it is on record when this returns.

        Args:
            work: what `bridge_tasks.workflows` or a task's `.s(...)` built.
            correlation_id: for every step. By default steps keep what they carry, and those that carry none get
                the one bound here, else a new one.
            force: do it even if the same work is under way or was done already.

        Returns:
            The job; the one that stands already, where the same work was submitted before. Of a bulk run, the run.

        Raises:
            InvalidRequest: an argument of what can begin now is wrong; nothing was sent.
            kombu.exceptions.OperationalError: the broker is out of reach.
        """
        given = correlation_id or correlation.current()
        cid = None if given is None else correlation.parse(given)
        if isinstance(work, BulkRun):
            run: Run = await asyncio.to_thread(Bridge().submit, work, correlation_id=cid, force=force)
            return AsyncRun(run.id, run.correlation_id)
        async with line() as mine:
            if correlation_id is not None:
                work = fresh(work)
                address(work, correlation_id)
            return _awaitable(await mine.outbox.send(work, cid, force=force))

    async def job(self, name: str) -> AsyncJob:
        """Return the job with this id.

        Raises:
            JobUnknown: there is no record, or no longer.
        """
        known = await AsyncJob(name, None).record()
        return AsyncJob(name, known.correlation_id, known.parts or (name,))

    async def run(self, name: str) -> AsyncRun:
        """Return the bulk run with this id.

        Raises:
            JobUnknown: there is no record, or no longer.
        """
        return AsyncRun(name, (await AsyncRun(name, "").progress()).correlation_id)

    async def find(
        self, *, correlation_id: UUID | str | None = None, file: str | os.PathLike[str] = ""
    ) -> list[AsyncJob]:
        """Return the jobs with a correlation id, oldest first, or the latest job about a file, as far as known."""
        async with line() as mine:
            records = await found(mine.ledger, correlation_id, file)
        return [AsyncJob(record.id, record.correlation_id, record.parts or (record.id,)) for record in records]

    async def as_completed(
        self,
        jobs: Iterable[AsyncJob],
        timeout: float | None = None,  # noqa: ASYNC109 - as `Bridge.as_completed` has it
    ) -> AsyncIterator[AsyncEnded]:
        """Give each job's end as it comes.

        Raises:
            TimeoutError: some have not ended after `timeout` seconds.
        """
        waiting = {job.id: job for job in jobs}
        clock = asyncio.get_running_loop().time
        ends = None if timeout is None else clock() + timeout
        arrived: asyncio.Queue[tuple[str, asyncio.Future[Outcome]]] = asyncio.Queue()
        async with line() as mine:
            futures = {name: mine.arrivals.expect(name) for name in waiting}
            for name, future in futures.items():
                future.add_done_callback(lambda done, name=name: arrived.put_nowait((name, done)))  # type: ignore[misc]
            try:
                while waiting:
                    try:
                        async with asyncio.timeout(None if ends is None else max(0.0, ends - clock())):
                            name, future = await arrived.get()
                    except TimeoutError:
                        raise TimeoutError(f"{len(waiting)} jobs have not ended after {timeout} s") from None
                    job = waiting.pop(name)
                    outcome = future.result()
                    whole = await _retried(partial(mine.ledger.all_of_it, job.id, job.parts, outcome))
                    yield AsyncEnded(job, whole.result, whole.error)
            finally:
                for name, future in futures.items():
                    mine.arrivals.forget(name, future)

    async def health(self, *, services: bool = False) -> SystemHealth:
        """Say how all of it is: Redis, workers, queues, circuits, dead letters; never raises because one is down.

        Args:
            services: ask both services as well, which may take seconds.
        """
        runtime = current()
        async with line() as mine:
            seen = await look(mine.commands, mine.shared, **what_to_look_at(runtime))
        return replace(seen, services=await asyncio.to_thread(ask_services, runtime)) if services else seen


async def _retried(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until Redis answers: who waits for an end outlasts a restart."""
    while True:
        try:
            return await ask()
        except (RedisConnectionError, RedisTimeout, OSError):
            await asyncio.sleep(_PAUSE_SECONDS)


async def _event_or_timeout(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _awaitable(job: Job) -> AsyncJob:
    return AsyncJob(job.id, job.correlation_id, job.parts, job.stands)
