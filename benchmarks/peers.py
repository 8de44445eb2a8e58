"""Who is measured: the same POST without protection, as one would protect it by hand, and as we do.

Each function makes a call that can be repeated. None of them measures.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import httpx
import pybreaker
import redis
import tenacity
from interlock import CircuitBreaker as InterlockBreaker
from interlock.integrations.redis import RedisStorage as InterlockStorage

from benchmarks.harness import Call
from bridge_tasks import correlation, events
from bridge_tasks.observability import logs
from bridge_tasks.runtime import Runtime
from bridge_tasks.settings import Settings

HASH = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
STAMP_DATA = {"context": "authentication", "intelligence": {"analysis_type": "security_analysis", "score": "0.9"}}
PAYLOAD = {
    "file_hash": HASH,
    "file_path": "/srv/docs/readme.md",
    "file_size": 5,
    "content_type": "text/plain",
    "stamp_data": STAMP_DATA,
    "namespace": "omninode.services.metadata",
}
MANY = 60_000_000
"""Calls a minute: a rate limit that counts every call and refuses none."""


def bare(url: str) -> Call:
    """Make the unprotected call: httpx, `raise_for_status`, `.json()`."""
    client = httpx.Client()

    def call() -> Any:
        response = client.post(f"{url}/stamp", json=PAYLOAD)
        response.raise_for_status()
        return response.json()["data"]

    return call


def bare_in_turn(urls: Sequence[str]) -> Call:
    """Call one service after the other, bare, each by a client of its own."""
    calls = cycle([bare(url) for url in urls])

    def call() -> Any:
        return next(calls)()

    return call


def with_pybreaker(url: str, redis_url: str) -> Call:
    """Protect it by tenacity and pybreaker, with its Redis storage."""
    storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, redis.Redis.from_url(redis_url), "bench")
    breaker = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=60, state_storage=storage)
    return _retried(breaker.call, bare(url))


def with_interlock(url: str, redis_url: str) -> Call:
    """Protect it by tenacity and interlock-cb, with its Redis storage."""
    breaker = InterlockBreaker(name="bench", storage=InterlockStorage(redis.Redis.from_url(redis_url)))
    return _retried(breaker.call, bare(url))


def _retried(guard: Any, unprotected: Call) -> Call:
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_exponential_jitter(initial=0.5, max=10),
        retry=tenacity.retry_if_exception_type(httpx.TransportError),
        reraise=True,
    )
    return lambda: retrying(guard, unprotected)


def _count(event: events.Event) -> None:
    if isinstance(event, events.RequestFinished):
        _counts[event.service, event.operation, event.status] += 1


_counts: Counter[tuple[str, str, int | None]] = Counter()


def runtime(urls: Sequence[str], redis_url: str) -> Runtime:
    """Open a worker's runtime with everything on.

    Shared breaker and budget, a rate limit in Redis, a limit of calls at a time, and two listeners to the events:
    the log, and counters as metrics keep them. Balancing is there where there are several URLs.
    """
    logs.configure("INFO")
    events.subscribe(_count)
    limits = {"per_minute": {"create_stamp": MANY}, "max_concurrent": 64}
    return Runtime(
        Settings.model_validate({"redis_url": redis_url, "metadata": {"urls": tuple(urls), "limits": limits}})
    )


def guarded(urls: Sequence[str], redis_url: str) -> Call:
    """Make our call, with everything on, under a correlation id."""
    opened = runtime(urls, redis_url)

    def call() -> Any:
        with correlation.bound("bench-1"):
            return opened.run(
                opened.metadata.create_stamp(HASH, "/srv/docs/readme.md", 5, STAMP_DATA, "text/plain")
            )

    return call
