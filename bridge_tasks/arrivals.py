"""Waiting for jobs in an asyncio program: one subscription, however many are awaited; no thread and no polling.

Two tasks of the event loop do it. One listens: it passes on whose end was told, and has all asked about again when
it had lost the connection. The other asks (`watch` tells how a job stands and has its end told, in one step) about
all that have come up meanwhile, in one call. So no end falls between two steps, and a thousand ends cost a few
calls. Nothing here ever cancels or changes a job.
"""

import asyncio
from collections.abc import Iterable
from uuid import uuid4

import redis.asyncio as aredis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from bridge_tasks.errors import JobUnknown
from bridge_tasks.ledger.jobs import JobLedger
from bridge_tasks.ledger.records import Outcome
from bridge_tasks.ledger.waiting import CHANNEL

_PING_SECONDS = 5.0
"""Silence after which the connection is tried; after twice that, it is given up."""
_ASK_SECONDS = 30.0
"""Ends are pushed; this is for a Redis that lost who waits."""
_PAUSE_SECONDS = 0.2


class Arrivals:
    """The ends of jobs as they come, for one event loop.

    Args:
        client: a Redis client of this loop; one connection of its pool is kept for the subscription.
        ledger: over the same Redis.
    """

    def __init__(self, client: aredis.Redis, ledger: JobLedger) -> None:
        self._client = client
        self._ledger = ledger
        self._channel = f"{CHANNEL}{uuid4().hex}"
        self._waiting: dict[str, set[asyncio.Future[Outcome]]] = {}
        self._topics: dict[str, set[asyncio.Event]] = {}
        self._unasked: set[str] = set()
        self._to_ask = asyncio.Event()
        self._listening = asyncio.Event()
        self._news: PubSub | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def awaited(self) -> int:
        """How many jobs somebody waits for."""
        return len(self._waiting)

    def expect(self, name: str) -> asyncio.Future[Outcome]:
        """Return what will be a job's outcome, a failure (`JobUnknown`) where there is no record of it.

        Whoever waits no more must `forget` it.
        """
        self._begin()
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, set()).add(future)
        self._ask_about([name])
        return future

    def forget(self, name: str, future: asyncio.Future[Outcome]) -> None:
        """Wait no more."""
        future.cancel()
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._waiting[name]
                self._unasked.discard(name)

    async def outcome(self, name: str) -> Outcome:
        """Wait for a job's end."""
        future = self.expect(name)
        try:
            return await future
        finally:
            self.forget(name, future)

    async def follow(self, topic: str, changed: asyncio.Event) -> None:
        """Have an event set whenever something is published on a channel, and whenever it may have been."""
        self._begin()
        known = topic in self._topics
        self._topics.setdefault(topic, set()).add(changed)
        if self._news is not None and not known:
            try:
                await self._news.subscribe(topic)
            except (RedisError, OSError):
                return  # the listener notices, and subscribes to all

    async def unfollow(self, topic: str, changed: asyncio.Event) -> None:
        """Undo `follow`."""
        events = self._topics.get(topic, set())
        events.discard(changed)
        if not events and self._topics.pop(topic, None) is not None and self._news is not None:
            try:
                await self._news.unsubscribe(topic)
            except (RedisError, OSError):
                return

    async def close(self) -> None:
        """Stop listening. Nobody may wait any more."""
        tasks, self._tasks = self._tasks, ()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self) -> None:
        if not self._tasks:
            self._tasks = (
                asyncio.create_task(self._listen(), name="bridge-listen"),
                asyncio.create_task(self._ask(), name="bridge-ask"),
            )

    def _ask_about(self, names: Iterable[str]) -> None:
        self._unasked.update(names)
        self._to_ask.set()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._client.pubsub() as news:
                    await self._subscribe(news)
                    await self._hear(news)
            except (RedisError, OSError):
                pass
            finally:
                self._news = None
                self._listening.clear()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _subscribe(self, news: PubSub) -> None:
        channels = [self._channel, *self._topics]
        await news.subscribe(*channels)
        for _ in channels:
            if await news.get_message(timeout=_PING_SECONDS) is None:
                raise RedisTimeout("the subscription was not confirmed")
        self._news = news
        self._listening.set()
        self._ask_about(self._waiting)  # an end may have been told while nobody listened
        for events in self._topics.values():
            _set_all(events)

    async def _hear(self, news: PubSub) -> None:
        silent = False
        while True:
            message = await news.get_message(timeout=_PING_SECONDS)
            if message is None:
                if silent:
                    raise RedisTimeout("the connection is dead")
                silent = True
                await news.ping()
                continue
            silent = False
            if message["type"] != "message":
                continue
            topic = message["channel"].decode()
            if topic == self._channel:
                self._ask_about([message["data"].decode()])
            else:
                _set_all(self._topics.get(topic, ()))

    async def _ask(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._to_ask.wait(), _ASK_SECONDS)
            except TimeoutError:
                self._unasked.update(self._waiting)
            await self._listening.wait()  # or an end could be told before anybody listens
            names = [name for name in self._unasked if name in self._waiting]
            self._unasked.clear()
            self._to_ask.clear()
            try:
                known = await self._ledger.watch(names, self._channel) if names else {}
            except (RedisError, OSError):
                self._ask_about(names)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
                self._fail(names, error)
                continue
            for name in names:
                self._tell(name, known.get(name, _unknown(name)))

    def _tell(self, name: str, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        for future in self._waiting.pop(name, ()):
            if not future.done():
                future.set_result(outcome)

    def _fail(self, names: Iterable[str], error: Exception) -> None:
        for name in names:
            for future in self._waiting.pop(name, ()):
                if not future.done():
                    future.set_exception(error)


def _unknown(name: str) -> Outcome:
    return Outcome("failed", error=JobUnknown(f"there is no record of job {name}"))


def _set_all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()
