"""Circuits in a real Redis, for tests: a client that fails as quickly as the runtime's, and stores over it."""

import time
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks.driver import BlockingRedis
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig, micros
from bridge_tasks.resilience.state.redis_circuit import RedisCircuitStore
from bridge_tasks.resilience.state.shared_redis import SharedRedis


def quick(url: str, seconds: float = 1.0) -> redis.Redis:
    """A client that does not try twice."""
    return redis.Redis.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_timeout=seconds, socket_connect_timeout=1.0
    )


def circuit_store(
    client: redis.Redis,
    name: str,
    config: CircuitBreakerConfig,
    clock: Callable[[], float],
    *,
    server_clock: Callable[[], float] | None = None,
    **options: Any,
) -> RedisCircuitStore:
    """A store whose Redis lives by the test's clock as well; every store made is a process of its own."""
    server_clock = server_clock or clock
    name_of_process = f"process-{id(options)}-{client.incr('processes')}"
    return RedisCircuitStore(
        name,
        config,
        SharedRedis(BlockingRedis(client), clock=clock),
        clock=clock,
        server_time=lambda: micros(server_clock()),
        **{"reporter": lambda: name_of_process, **options},
    )


def eventually(check: Callable[[], object], seconds: float = 20.0) -> bool:
    """Poll until `check` gives something true; False when the time is over."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
