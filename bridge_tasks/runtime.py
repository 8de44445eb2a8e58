"""What one process needs to work, opened when first asked for: the composition root, and the only sync/async door.

`run` drives a coroutine that never suspends, because everything at its bottom blocks: no event loop, no thread,
nothing that a fork could break. A runtime belongs to the process that opened it; a child opens its own.
"""

import atexit
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks.cache import RedisCache
from bridge_tasks.clients.metadata_stamping_client import AsyncMetadataStampingClient
from bridge_tasks.clients.onextree_client import AsyncOnexTreeClient
from bridge_tasks.content import ContentStore
from bridge_tasks.copies import CopiedRedis, Copies
from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.ledger import JobLedger
from bridge_tasks.ledger.runs import RunLedger
from bridge_tasks.operations import Services
from bridge_tasks.places import Place
from bridge_tasks.resilience.state.push import CircuitListener
from bridge_tasks.resilience.state.shared_redis import RedisCommands, SharedRedis
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.settings import ServiceSettings, Settings, load

T = TypeVar("T")

REDIS_SECONDS = 1.0
"""redis-py's own defaults (10 retries, 5 s each) can hold a task for a minute; a blob's bytes need some time."""

SHARED_SECONDS = 0.1
SHARED_CONNECT_SECONDS = 0.05
"""Shared state is help, never a condition: nobody waits longer for it (resilience.md 4.6)."""


class Runtime:
    """The clients, Redis and the content store of one process; each connects when first used. Thread-safe.

    Args:
        settings: the tree from the environment.
        bottom: how I/O is done; blocking, for tasks.
        patient: give shared state as long as all else in Redis.
    """

    def __init__(self, settings: Settings, bottom: Bottom | None = None, *, patient: bool = False) -> None:
        bottom = bottom or blocking_bottom()
        self.settings = settings
        self.redis = settings.state_place.client(
            retry=Retry(NoBackoff(), 1),
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
        )
        self._shared_redis = settings.state_place.client(
            retry=Retry(NoBackoff(), 0),
            socket_timeout=REDIS_SECONDS if patient else SHARED_SECONDS,
            socket_connect_timeout=REDIS_SECONDS if patient else SHARED_CONNECT_SECONDS,
        )
        self.ledger_redis = settings.ledger_place.client(
            retry=Retry(NoBackoff(), 1),
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
        )
        self.ledger = JobLedger(BlockingRedis(self.ledger_redis), settings.ledger, relayed=settings.rabbit_broker)
        self.runs = RunLedger(BlockingRedis(self.ledger_redis), settings.ledger)
        self.copies = settings.copies(refuse=True)
        submitted, begun = map(self._lasting, (self.copies, settings.copies(refuse=False)))
        self.submitted = JobLedger(submitted, settings.ledger)
        self.submitted_runs = RunLedger(submitted, settings.ledger)
        self.begun = JobLedger(begun, settings.ledger)
        """The same, for writes on which a promise rests: they wait until a replica has them, if there are any."""
        self.shared = SharedRedis(BlockingRedis(self._shared_redis))
        self.circuit_news = CircuitListener(lambda: _listening(settings.state_place))
        self.metadata = AsyncMetadataStampingClient(
            **_service(settings.metadata, bottom, self.shared, self.circuit_news)
        )
        self.onextree = AsyncOnexTreeClient(
            **_service(settings.onextree, bottom, self.shared, self.circuit_news),
            enable_cache=settings.onextree.cache,
            cache_ttl=settings.onextree.cache_ttl,
            cache_max_size=settings.onextree.cache_max_size,
            cache_rules=settings.onextree.cache_rules,
            cache=RedisCache(
                self.shared,
                "onextree",
                settings.onextree.cache_max_size,
                rules=settings.onextree.cache_rules,
                clock=bottom.clock,
                chance=bottom.chance,
            ),
        )
        self.content = ContentStore(settings.content, BlockingRedis(self.redis), bottom)
        self.services = Services(self.metadata, self.onextree, self.content)

    def _lasting(self, copies: Copies | None) -> RedisCommands:
        return BlockingRedis(self.ledger_redis) if copies is None else CopiedRedis(self.ledger_redis, copies)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Drive a coroutine over this runtime's clients to its end."""
        return drive(coroutine)

    def flush(self, *, overdue: bool = False) -> None:
        """Tell the shared circuits what was put by; with `overdue`, only what has waited for long."""
        for client in (self.metadata, self.onextree):
            if not overdue or client.circuit_breaker.overdue:
                drive(client.circuit_breaker.flush())

    def close(self) -> None:
        """Close every connection."""
        self.flush()
        self.circuit_news.stop()
        for opened in (self.metadata, self.onextree, self.content):
            drive(opened.close())
        self.redis.close()
        self.ledger_redis.close()
        self._shared_redis.close()


def _listening(place: Place) -> redis.Redis:
    """Open the connection on which news comes; it is pinged, so that a dead one is found out."""
    return place.client(
        retry=Retry(NoBackoff(), 0), health_check_interval=5, socket_connect_timeout=1.0, socket_timeout=1.0
    )


def _service(
    settings: ServiceSettings, bottom: Bottom, shared: SharedRedis, circuit_news: CircuitListener
) -> dict[str, Any]:
    return {
        "base_url": settings.urls[0],
        "replicas": settings.urls[1:],
        "timeout": settings.timeout,
        "retry": settings.retry,
        "deadline": settings.deadline,
        "circuit_breaker_config": settings.breaker,
        "balancing": settings.balancing,
        "hedging": settings.hedging,
        "limits": settings.limits,
        "budget": settings.budget,
        "shared": shared,
        "circuit_news": circuit_news,
        "bottom": bottom,
    }


def opened() -> Runtime | None:
    """Return this process's runtime, if there is one."""
    return _runtime


_lock = threading.Lock()
_runtime: Runtime | None = None


def current(*, patient: bool = False) -> Runtime:
    """Return this process's runtime, opened now if it was not.

    Args:
        patient: for people, who rather wait a moment than be told that Redis is away. Only where it is opened now.

    Raises:
        ConfigurationError: the environment is wrong.
    """
    global _runtime  # noqa: PLW0603 - the one process-wide thing; forgotten in a child, closed at exit
    if _runtime is None:
        with _lock:
            if _runtime is None:
                _runtime = Runtime(load(), patient=patient)
    return _runtime


def close() -> None:
    """Close this process's runtime; the next `current()` opens another."""
    global _runtime
    with _lock:
        closing, _runtime = _runtime, None
    if closing is not None:
        closing.close()


def _forget_in_child() -> None:
    """Leave the parent's sockets to the parent: dropping the reference is all that a child may do with them."""
    global _lock, _runtime, _inherited  # noqa: PLW0603 - see current()
    _inherited = _runtime
    _lock, _runtime = threading.Lock(), None


_inherited: Runtime | None = None
"""Kept, so that the garbage collector of a child does not shut connections that the parent still uses."""

os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(close)
