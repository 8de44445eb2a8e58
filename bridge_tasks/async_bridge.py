"""What an asyncio orchestrator imports: `Bridge`, awaitable. One Redis subscription serves all that is awaited.

Submitting is kombu's, which blocks: one thread at a time does it, and sends in one round trip what has come up
meanwhile. All else is this event loop's own. An awaiting task that is cancelled leaves nothing; its job goes on.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import UUID
from weakref import WeakKeyDictionary

import redis.asyncio as aredis
from celery.canvas import Signature
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout

from bridge_tasks import correlation, tracing
from bridge_tasks.app import app
from bridge_tasks.arrivals import Arrivals
from bridge_tasks.bridge import Bridge, Job, ask_services, found, what_to_look_at
from bridge_tasks.chunking import BulkRun
from bridge_tasks.errors import BridgeError, JobUnknown
from bridge_tasks.ledger import JobLedger, JobRecord, Outcome, keys
from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.ledger.runs import RunLedger
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.runs import Run
from bridge_tasks.runtime import current
from bridge_tasks.settings import Settings, load
from bridge_tasks.vitals import SystemHealth, look

T = TypeVar("T")

_CONNECTIONS = 8
"""To each Redis, besides the one for the subscription; who finds none free waits a moment."""
_SECONDS = 5.0
_NEWS_SECONDS = 1.0
_PAUSE_SECONDS = 0.2


class _Line:
    """What one event loop needs: connections, the arrivals of ends, and the thread that sends."""

    def __init__(self, settings: Settings) -> None:
        self.users = 0
        self._clients = [_client(settings.ledger_url), _client(settings.redis_url.get_secret_value())]
        self.commands, shared = self._clients
        self.ledger = JobLedger(self.commands, settings.ledger)
        self.runs = RunLedger(self.commands, settings.ledger)
        self.shared = SharedRedis(shared)
        self._news = aredis.Redis.from_url(
            settings.ledger_url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=_SECONDS
        )
        self.arrivals = Arrivals(self._news, self.ledger)
        self.outbox = _Outbox()

    async def close(self) -> None:
        await self.arrivals.close()
        await self.outbox.close()
        for client in (*self._clients, self._news):
            await client.aclose()


def _client(url: str) -> aredis.Redis:
    pool = aredis.BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=_SECONDS,
        retry=Retry(NoBackoff(), 1),
        socket_timeout=_SECONDS,
        socket_connect_timeout=_SECONDS,
    )
    return aredis.Redis.from_pool(pool)


_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Line]] = WeakKeyDictionary()
"""One for each loop (and ledger); it is closed when nobody uses it any more."""


@asynccontextmanager
async def _line() -> AsyncIterator[_Line]:
    settings = load()
    lines = _lines.setdefault(asyncio.get_running_loop(), {})
    line = lines.get(settings.ledger_url) or lines.setdefault(settings.ledger_url, _Line(settings))
    line.users += 1
    try:
        yield line
    finally:
        line.users -= 1
        if not line.users:
            if lines.get(settings.ledger_url) is line:
                del lines[settings.ledger_url]
            await line.close()


class _Outbox:
    """Sends what is submitted, in a thread of its own, one batch after the other."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: list[tuple[Signature[Any], str | None, bool, tracing.Carrier, asyncio.Future[Job]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def send(self, work: Signature[Any], correlation_id: str | None, *, force: bool) -> Job:
        future: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, correlation_id, force, tracing.carrier(), future))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all(), name="bridge-send")
        return await future

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, _hang_up)
            thread.shutdown(wait=False)

    async def _send_all(self) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="bridge-send")
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken, self._waiting = self._waiting, []
            some = [one for one in taken if not one[-1].cancelled()]
            try:
                works, carriers = [one[:3] for one in some], [one[3] for one in some]
                answers: list[Any] = await loop.run_in_executor(
                    self._thread, Bridge().submit_each, works, carriers
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who submitted
                answers = [error] * len(some)
            for (*_, future), answer in zip(some, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)


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
        async with _line() as line:
            try:
                async with asyncio.timeout(timeout):
                    outcome = await line.arrivals.outcome(self.id)
                    whole = await _retried(lambda: line.ledger.all_of_it(self.parts, outcome))
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
        async with _line() as line:
            known = await line.ledger.find(self.id)
        if known is None:
            raise JobUnknown(f"there is no record of job {self.id}")
        return known

    async def state(self) -> str:
        """Return waiting, running, succeeded, failed or cancelled."""
        return (await self.record()).state

    async def cancel(self) -> bool:
        """Have what has not begun never begin; of a chain, every step to come. Whether there was any."""
        async with _line() as line:
            return await line.ledger.cancel(self.id) == "cancelled"


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
        async with _line() as line:
            changed = asyncio.Event()
            await line.arrivals.follow(keys.RUN_NEWS + self.id, changed)
            try:
                while True:
                    changed.clear()
                    progress = await _retried(self.progress)
                    yield progress
                    if progress.done:
                        return
                    await _event_or_timeout(changed, _NEWS_SECONDS)
            finally:
                await line.arrivals.unfollow(keys.RUN_NEWS + self.id, changed)

    async def progress(self) -> RunProgress:
        """Return how it stands.

        Raises:
            JobUnknown: there is no record, or no longer.
        """
        async with _line() as line:
            known = await line.runs.progress(self.id)
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
        async with _line() as line:
            await line.runs.stop(self.id)


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
        await self._stack.enter_async_context(_line())
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
            correlation_id: for steps that carry none yet; by default the one bound here, else a new one.
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
        async with _line() as line:
            return _awaitable(await line.outbox.send(work, cid, force=force))

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
        async with _line() as line:
            records = await found(line.ledger, correlation_id, file)
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
        async with _line() as line:
            futures = {name: line.arrivals.expect(name) for name in waiting}
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
                    whole = await _retried(lambda job=job, it=outcome: line.ledger.all_of_it(job.parts, it))  # type: ignore[misc]
                    yield AsyncEnded(job, whole.result, whole.error)
            finally:
                for name, future in futures.items():
                    line.arrivals.forget(name, future)

    async def health(self, *, services: bool = False) -> SystemHealth:
        """Say how all of it is: Redis, workers, queues, circuits, dead letters; never raises because one is down.

        Args:
            services: ask both services as well, which may take seconds.
        """
        runtime = current()
        async with _line() as line:
            seen = await look(line.commands, line.shared, **what_to_look_at(runtime))
        return replace(seen, services=await asyncio.to_thread(ask_services, runtime)) if services else seen


def _hang_up() -> None:
    """Close what Celery opened for this thread alone: its connections to the result backend, which chords need."""
    backend = vars(app._local).pop("backend", None)  # type: ignore[attr-defined] # noqa: SLF001 - there is no other way
    if backend is not None:
        backend.result_consumer.stop()
        backend.result_consumer._pubsub = None  # noqa: SLF001 - or a result that goes later would connect again
        backend.client.connection_pool.disconnect()


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
