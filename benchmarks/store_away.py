"""What does shared state cost while it is away? The guards of a call over a service that answers at once.

After a failure nobody asks the store for a pause that doubles up to 5 seconds; then one call looks whether it is
back, and waits for the client's own time-out at most. `calls` asked nobody, `looks` are those that did. The system
says which calls it interrupted to let others run, and which waited for something: the p99 is of those that it left
alone, and of the processor's time for all.
"""

import resource
import time
from typing import Any, NamedTuple

import httpx
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks import harness
from benchmarks.harness import Figures, Row
from bridge_tasks.driver import drive
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.limits import LimitsConfig
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.resilience.transport import service_breaker, service_limits, service_transport
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.call import EXTENSION, Call
from bridge_tasks.runtime import SHARED_CONNECT_SECONDS, SHARED_SECONDS
from bridge_tasks.sandbox.redis import PrivateRedis


class _Took(NamedTuple):
    """What one call took, in microseconds, and what else there is to say of it."""

    wall: float
    processor: float
    asked: bool
    waited: bool
    interrupted: bool


KINDS = ("there", "killed", "stopped")


class _Counting:
    """A client as quick to give up as a worker's, that counts what is asked of it."""

    def __init__(self, url: str) -> None:
        self.asked = 0
        self._client = redis.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=SHARED_SECONDS,
            socket_connect_timeout=SHARED_CONNECT_SECONDS,
        )

    async def execute_command(self, *arguments: Any) -> Any:
        """Run one command."""
        self.asked += 1
        return self._client.execute_command(*arguments)  # type: ignore[no-untyped-call] # redis-py's own gap


class _Answering(httpx.AsyncBaseTransport):
    """Answers at once."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return a good answer."""
        return httpx.Response(200, request=request)


def guards(store: _Counting) -> httpx.AsyncBaseTransport:
    """Build the whole way to a service, but for the service."""
    shared, blocking = SharedRedis(store), blocking_bottom()
    bottom = Bottom(connect=_Answering, sleep=blocking.sleep, signal=blocking.signal)
    limits = LimitsConfig(per_minute={"standard": 60_000_000})
    return service_transport(
        bottom,
        replicas=[httpx.URL("http://127.0.0.1")],
        deadline=30.0,
        retry=RetryConfig(),
        breaker=service_breaker("away", CircuitBreakerConfig(), bottom, shared),
        limits=service_limits("away", limits, BudgetConfig(), bottom, shared),
    )


def row(kind: str, server: PrivateRedis, seconds: float) -> Row:
    """Make calls for so long while Redis is like that."""
    store = _Counting(server.url)
    way, call = guards(store), Call("away", "create_stamp")

    def once() -> _Took:
        request = httpx.Request("POST", "http://127.0.0.1/stamp", extensions={EXTENSION: call})
        asked, before = store.asked, resource.getrusage(resource.RUSAGE_THREAD)
        began, used = time.perf_counter(), time.thread_time()
        drive(way.handle_async_request(request))
        processor, wall = time.thread_time() - used, time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_THREAD)
        return _Took(
            wall * 1e6,
            processor * 1e6,
            asked=store.asked > asked,
            waited=after.ru_nvcsw > before.ru_nvcsw,
            interrupted=after.ru_nivcsw > before.ru_nivcsw,
        )

    once()
    if kind == "killed":
        server.kill()
    elif kind == "stopped":
        server.pause()
    took: list[_Took] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        took.append(once())
    if kind == "stopped":
        server.resume()
    quiet = [one for one in took if not one.asked]
    alone = [one.wall for one in quiet if not one.interrupted]
    return {
        "Redis is": kind,
        "calls": len(quiet),
        "of them waited": sum(one.waited for one in quiet),
        "interrupted": sum(one.interrupted for one in quiet),
        "p50 µs": harness.percentile(alone, 0.5),
        "p99 µs": harness.percentile(alone, 0.99),
        "processor p99 µs": harness.percentile([one.processor for one in quiet], 0.99),
        "looks": len(took) - len(quiet),
        "longest look ms": round(max((one.wall for one in took if one.asked), default=0.0) / 1000, 1),
    }


def measure(seconds: int) -> Figures:
    """Measure each kind with a Redis of its own."""
    rows = []
    for kind in KINDS:
        with PrivateRedis() as server:
            rows.append(row(kind, server, seconds))
    return {"rows": rows}


if __name__ == "__main__":
    harness.run(__doc__, measure, seconds=15)
