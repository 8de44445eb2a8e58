"""All that one screen tells of a fleet, gathered in two round trips to Redis, and none to a worker or a service.

It looks and leaves no trace; what is out of reach is told as unknown, and nothing here raises because of it.
"""

import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from redis.exceptions import RedisError

from bridge_tasks.cache import CacheStats, RedisCache
from bridge_tasks.ledger.overview import LedgerOverview, overview
from bridge_tasks.pipelining import Pipelined, together
from bridge_tasks.resilience.policy.breaker import Circuit
from bridge_tasks.resilience.state import circuit_script
from bridge_tasks.resilience.state.circuit_script import Asker, Told
from bridge_tasks.resilience.state.shared_redis import SharedRedis, StoreUnavailable
from bridge_tasks.vitals import Broker, SystemHealth, look

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Overview:
    """What was seen at one moment.

    Attributes:
        taken: when, monotonic, in seconds, as the circuits tell their times.
        health: queues, workers, dead letters.
        ledger: jobs and runs; None where Redis is out of reach.
        circuits: by service; None where it could not be asked.
        cache: figures of OnexTree's answers; None where they could not be had, or nothing is kept.
    """

    taken: float
    health: SystemHealth
    ledger: LedgerOverview | None = None
    circuits: Mapping[str, Circuit | None] = field(default_factory=dict)
    cache: CacheStats | None = None


def take(
    ledger: Pipelined,
    shared: Pipelined,
    *,
    queues: Sequence[str],
    circuits: Mapping[str, Asker],
    broker: Broker,
    cache: Callable[[SharedRedis], RedisCache] | None,
    most: int,
) -> Overview:
    """Look at all of it.

    Args:
        ledger: the Redis with the jobs.
        shared: the Redis with circuits and cache.
        queues: those that workers read.
        circuits: by service, its circuit.
        broker: what carries the messages.
        cache: makes a view of the cache; None where nothing is kept.
        most: how many jobs, failures and runs of each kind.
    """
    now = time.monotonic()
    store = SharedRedis(shared)
    health, jobs, stats, *seen = together(
        look(ledger, store, queues=queues, circuits={}, broker=broker),
        _or_none(overview(ledger, most)),
        _stats(cache(store) if cache else None),
        *(_circuit(store, asker, now) for asker in circuits.values()),
    )
    return Overview(now, health, jobs, dict(zip(circuits, seen, strict=True)), stats)


async def _or_none(asking: Coroutine[Any, Any, T]) -> T | None:
    try:
        return await asking
    except (RedisError, OSError):
        return None


async def _stats(cache: RedisCache | None) -> CacheStats | None:
    stats = None if cache is None else await cache.stats()
    return stats if stats and stats.shared else None


async def _circuit(store: SharedRedis, asker: Asker, now: float) -> Circuit | None:
    chance = random.random()  # noqa: S311 - unused by LOOK
    asked = circuit_script.ask(store, asker, Told(), circuit_script.LOOK, now=now, chance=chance)
    try:
        return circuit_script.read(await asked, now).circuit
    except StoreUnavailable:
        return None
