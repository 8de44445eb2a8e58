"""Where a Redis is: at an address, or wherever the sentinels that watch it say; and its clients.

A client outlives a failover: each new connection asks the sentinels who is master now, and what only a server that
must not be written to would answer counts as a lost connection. This module must never choose a time-out or a
number of tries: whoever asks for a client knows how long it can wait.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final
from urllib.parse import urlsplit

import redis
import redis.asyncio as aredis
from redis.asyncio import sentinel as loop_sentinel
from redis.connection import parse_url
from redis.exceptions import ResponseError
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection

SCHEME: Final = "sentinel://"
SENTINEL_PORT: Final = 26379

_NO_MASTER = ("NOREPLICAS", "UNBLOCKED", "MASTERDOWN")
"""What a server says whose copies are away, one that was just made a copy, and a copy that lost its master."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Redis is.

    Attributes:
        url: its address; or, in one, those of its sentinels: `sentinel://one:26379/0;sentinel://two:26379`. User,
            password and database are the first one's.
        master: what the sentinels call it.
        sentinel_password: the sentinels' own, if they have one.
    """

    url: str = field(repr=False)
    master: str = ""
    sentinel_password: str | None = field(default=None, repr=False)

    @property
    def watched(self) -> bool:
        """Whether sentinels say where it is."""
        return self.url.startswith(SCHEME)

    def client(self, **options: Any) -> redis.Redis:
        """Return a client that blocks.

        Args:
            options: of its connections, as redis-py knows them.
        """
        if not self.watched:
            return redis.Redis.from_url(self.url, **options)
        hosts, login = parts(self.url)
        asked: Any = _Sentinels(hosts, sentinel_kwargs=self.asking(options))  # type: ignore[no-untyped-call] # redis-py's
        made: redis.Redis = asked.master_for(
            self.master, redis_class=_Client, connection_class=Connection, **login, **options
        )
        return made

    def loop_client(self, *, most: int | None = None, wait: float = 0.0, **options: Any) -> aredis.Redis:
        """Return a client for the event loop that runs.

        Args:
            most: connections at a time; who finds none free waits.
            wait: seconds, at most, for one.
            options: of its connections.
        """
        limits: dict[str, Any] = {} if most is None else {"max_connections": most, "timeout": wait}
        if not self.watched:
            if most is None:
                return aredis.Redis.from_url(self.url, **options)
            return aredis.Redis.from_pool(aredis.BlockingConnectionPool.from_url(self.url, **limits, **options))
        hosts, login = parts(self.url)
        asked: Any = _LoopSentinels(hosts, sentinel_kwargs=self.asking(options))  # type: ignore[no-untyped-call] # the same
        made: aredis.Redis = asked.master_for(
            self.master,
            redis_class=_LoopClient,
            connection_pool_class=loop_sentinel.SentinelConnectionPool if most is None else _LoopPool,
            connection_class=_LoopConnection,
            **login,
            **limits,
            **options,
        )
        return made

    def asking(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return how sentinels are asked: as patiently as their Redis, each once, since there are others."""
        times: dict[str, Any] = {
            name: options[name] for name in ("socket_timeout", "socket_connect_timeout") if name in options
        }
        return {**times, "retry": None, "password": self.sentinel_password}


def parts(url: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Read an address with sentinels: who they are; user, password and database of what they watch."""
    hosts: list[tuple[str, int]] = []
    first: dict[str, Any] | None = None
    for one in url.split(";"):
        told: dict[str, Any] = parse_url(one.replace(SCHEME, "redis://", 1))  # type: ignore[no-untyped-call] # the same
        hosts.append((str(told.pop("host", "localhost")), int(told.pop("port", SENTINEL_PORT))))
        first = told if first is None else first
    return hosts, first or {}


def _lost(error: ResponseError) -> redis.ConnectionError | None:
    """Say that a connection leads to nobody who can be written to, where that is what an answer means."""
    said = str(error)
    return redis.ConnectionError(said) if said.startswith(_NO_MASTER) or "-READONLY" in said else None


class Connection(SentinelManagedConnection):
    """A connection to whoever is master."""

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer."""
        try:
            return super().read_response(*arguments, **options)
        except ResponseError as error:
            lost = _lost(error)
            if lost is None:
                raise
            self.disconnect()  # type: ignore[no-untyped-call] # the same
            raise lost from error


class _LoopConnection(loop_sentinel.SentinelManagedConnection):
    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*arguments, **options)
        except ResponseError as error:
            lost = _lost(error)
            if lost is None:
                raise
            await self.disconnect()
            raise lost from error


class _Sentinels(Sentinel):
    def discover_master(self, service_name: str) -> Any:
        """Ask; redis-py moves who answered to the front, which two threads at a time would make a mess of."""
        asking = copy.copy(self)
        asking.sentinels = list(self.sentinels)
        found = Sentinel.discover_master(asking, service_name)  # type: ignore[no-untyped-call] # redis-py's own gap
        self.sentinels = asking.sentinels
        return found


class _LoopSentinels(loop_sentinel.Sentinel):
    async def discover_master(self, service_name: str) -> Any:
        """Ask; the same, for two coroutines."""
        asking = copy.copy(self)
        asking.sentinels = list(self.sentinels)
        found = await loop_sentinel.Sentinel.discover_master(asking, service_name)
        self.sentinels = asking.sentinels
        return found


class _Client(redis.Redis):
    def close(self) -> None:
        """Close the connections, also those to the sentinels."""
        super().close()
        pool = self.connection_pool
        if isinstance(pool, SentinelConnectionPool):
            pool.sentinel_manager.close()


class _LoopClient(aredis.Redis):
    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections, also those to the sentinels."""
        await super().aclose(close_connection_pool)
        pool = self.connection_pool
        if isinstance(pool, loop_sentinel.SentinelConnectionPool):
            await pool.sentinel_manager.aclose()


class _LoopPool(loop_sentinel.SentinelConnectionPool, aredis.BlockingConnectionPool):
    """Both: it asks who is master, and has whoever finds no connection free wait."""


def stay(alternates: Sequence[str]) -> Iterator[str]:
    """Be kombu's strategy for the next address after a failure: the same, by its bare name.

    A channel asks all sentinels anyway. kombu's own strategies go to the next URL, and take the transport from its
    scheme: from the first lost connection on, that would be kombu's transport, whose messages have no records.
    """
    return repeat(urlsplit(alternates[0]).hostname or "localhost")
