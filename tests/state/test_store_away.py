"""What shared state costs while it is away: nothing, counted in commands put on it, but for one look at a time.

How long a look may take is the client's time-out; how long a call takes that asks nobody, `benchmarks.store_away`
measures.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis

from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.limits import LimitsConfig
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.state.shared_redis import FIRST_PAUSE, LONGEST_PAUSE, SharedRedis
from bridge_tasks.resilience.transport import service_breaker, service_limits, service_transport
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.call import EXTENSION, Call
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock

GONE = [
    redis.exceptions.ConnectionError("refused"),
    redis.exceptions.TimeoutError("no answer"),
    redis.exceptions.ReadOnlyError("a replica"),
    redis.exceptions.OutOfMemoryError("full"),
    OSError("no route"),
]


class Away:
    """A Redis that is not there; counts what is tried on it."""

    def __init__(self, trouble: Exception) -> None:
        self.tried = 0
        self._trouble = trouble
        self._lock = threading.Lock()

    async def execute_command(self, *_: Any) -> Any:
        with self._lock:
            self.tried += 1
        raise self._trouble


class Answering(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, request=request)


@pytest.fixture(params=GONE, ids=lambda trouble: type(trouble).__name__)
def away(request: pytest.FixtureRequest) -> Away:
    return Away(request.param)


@pytest.fixture
def call(away: Away, clock: StoppedClock) -> Callable[[], None]:
    """A call with a breaker, a budget and a limit over that Redis."""
    shared = SharedRedis(away, clock=clock, chance=lambda: 0.5)
    bottom = Bottom(connect=Answering, sleep=clock.sleep, clock=clock, chance=lambda: 0.5)
    limits = LimitsConfig(per_minute={"standard": 60_000})
    way = service_transport(
        bottom,
        replicas=[httpx.URL("http://service")],
        deadline=30.0,
        retry=RetryConfig(),
        breaker=service_breaker("away", CircuitBreakerConfig(), bottom, shared),
        limits=service_limits("away", limits, BudgetConfig(), bottom, shared),
    )

    def once() -> None:
        extensions = {EXTENSION: Call("away", "create_stamp")}
        request = httpx.Request("POST", "http://service/stamp", extensions=extensions)
        assert finished(way.handle_async_request(request)).status_code == 200

    return once


def test_once_a_command_failed_no_call_asks_for_anything(away: Away, call: Callable[[], None]) -> None:
    call()
    assert away.tried == 1, "the first guard found it out, and the others of the same call did not try"
    for _ in range(1000):
        call()
    assert away.tried == 1


def test_when_the_pause_is_over_one_call_looks_and_the_pause_doubles_up_to_a_limit(
    away: Away, call: Callable[[], None], clock: StoppedClock
) -> None:
    call()
    pauses = []
    for _ in range(8):
        before, began = away.tried, clock()
        while away.tried == before:
            clock.advance(FIRST_PAUSE / 10)
            call()
            call()
        assert away.tried == before + 1
        pauses.append(clock() - began)
    expected = [min(FIRST_PAUSE * 2.0**number, LONGEST_PAUSE) for number in range(8)]
    assert pauses == pytest.approx(expected, abs=FIRST_PAUSE / 5)


def test_of_sixteen_threads_one_looks(away: Away, call: Callable[[], None], clock: StoppedClock) -> None:
    call()
    clock.advance(FIRST_PAUSE)
    barrier = threading.Barrier(16)

    def at_once() -> None:
        barrier.wait()
        call()

    with ThreadPoolExecutor(16) as threads:
        for done in [threads.submit(at_once) for _ in range(16)]:
            done.result()
    assert away.tried == 2
