"""What one event loop of an asyncio program has with Redis: connections, ends of jobs, the thread that submits.

One for each loop and ledger, shared by all bridges in it, and closed when nobody uses it any more.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import redis.asyncio as aredis
from celery.canvas import Signature
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bridge_tasks import tracing
from bridge_tasks.app import app
from bridge_tasks.arrivals import Arrivals
from bridge_tasks.bridge import Bridge, Job
from bridge_tasks.ledger import JobLedger
from bridge_tasks.ledger.runs import RunLedger
from bridge_tasks.places import Place
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.settings import Settings, load

_CONNECTIONS = 8
"""To each Redis, besides the one for the subscription; who finds none free waits a moment."""
_SECONDS = 5.0


class Line:
    """What one event loop needs: connections, the arrivals of ends, and the thread that sends."""

    def __init__(self, settings: Settings) -> None:
        self.users = 0
        self._clients = [_client(settings.ledger_place), _client(settings.state_place)]
        self.commands, shared = self._clients
        self.ledger = JobLedger(self.commands, settings.ledger, relayed=settings.rabbit_broker)
        self.runs = RunLedger(self.commands, settings.ledger)
        self.shared = SharedRedis(shared)
        self._news = settings.ledger_place.loop_client(
            retry=Retry(NoBackoff(), 0), socket_connect_timeout=_SECONDS
        )
        self.arrivals = Arrivals(self._news, self.ledger)
        self.outbox = Outbox()

    async def close(self) -> None:
        await self.arrivals.close()
        await self.outbox.close()
        for client in (*self._clients, self._news):
            await client.aclose()


def _client(place: Place) -> aredis.Redis:
    return place.loop_client(
        most=_CONNECTIONS,
        wait=_SECONDS,
        retry=Retry(NoBackoff(), 1),
        socket_timeout=_SECONDS,
        socket_connect_timeout=_SECONDS,
    )


lines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Line]] = WeakKeyDictionary()
"""One for each loop (and ledger); it is closed when nobody uses it any more."""


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    """Give this loop's; the last to leave closes it."""
    settings = load()
    known = lines.setdefault(asyncio.get_running_loop(), {})
    mine = known.get(settings.ledger_url) or known.setdefault(settings.ledger_url, Line(settings))
    mine.users += 1
    try:
        yield mine
    finally:
        mine.users -= 1
        if not mine.users:
            if known.get(settings.ledger_url) is mine:
                del known[settings.ledger_url]
            await mine.close()


class Outbox:
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


def _hang_up() -> None:
    """Close what Celery opened for this thread alone: its connections to the result backend, which chords need."""
    backend = vars(app._local).pop("backend", None)  # type: ignore[attr-defined] # noqa: SLF001 - there is no other way
    if backend is not None:
        backend.result_consumer.stop()
        backend.result_consumer._pubsub = None  # noqa: SLF001 - or a result that goes later would connect again
        backend.client.connection_pool.disconnect()
