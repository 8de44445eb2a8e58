"""The guide's `CircuitBreaker`, row by row of behaviours.md, part 1 (the row is in each test's comment).

Each test runs twice: with the state in this process, and with the state in Redis. Time is an injected clock; only
a timeout is real, and then a few milliseconds long.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from bridge_tasks import events
from bridge_tasks.clients.circuit_breaker import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerError,
    CircuitState,
)
from bridge_tasks.resilience.state.local import LocalCircuitStore
from bridge_tasks.resilience.state.port import CircuitStore
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.circuits import circuit_store, quick
from tests.stopped_clock import StoppedClock

MakeStore = Callable[[CircuitBreakerConfig, Callable[[], float]], CircuitStore]
_names = itertools.count()

CONFIG = CircuitBreakerConfig(failure_threshold=3, recovery_timeout=60, success_threshold=2, minimum_throughput=1)


class ServiceTrouble(Exception):  # noqa: N818 - any exception of any caller
    pass


async def works() -> str:
    return "done"


async def fails() -> None:
    raise ServiceTrouble("down")


async def never_ends() -> None:
    await asyncio.Event().wait()


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with PrivateRedis() as server, quick(server.url) as client:
        yield client


class Place:
    """Where the breakers of the running test keep their state."""

    make: MakeStore = LocalCircuitStore


@pytest.fixture(params=["local", "redis"], autouse=True)
def place(request: pytest.FixtureRequest, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_redis(config: CircuitBreakerConfig, clock: Callable[[], float]) -> CircuitStore:
        return circuit_store(client, f"guide-{next(_names)}", config, clock)

    monkeypatch.setattr(Place, "make", LocalCircuitStore if request.param == "local" else staticmethod(in_redis))


@pytest.fixture
def breaker(clock: StoppedClock) -> CircuitBreaker:
    return breaker_with(clock)


def breaker_with(clock: StoppedClock, **numbers: Any) -> CircuitBreaker:
    config = replace(CONFIG, **numbers)
    return CircuitBreaker("test", config, store=Place.make(config, clock), clock=clock)


async def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(ServiceTrouble):
            await breaker.call(fails)


async def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        assert await breaker.call(works) == "done"


async def half_opened(breaker: CircuitBreaker, clock: StoppedClock) -> None:
    """Open it, let its time pass, and let one probe succeed."""
    await fail(breaker, 3)
    clock.advance(60)
    await succeed(breaker)
    assert breaker.state is CircuitState.HALF_OPEN


# Construction and config


def test_a_breaker_has_its_name_config_metrics_and_state_and_needs_no_loop() -> None:  # rows 7, 8
    breaker = CircuitBreaker("my-service", CONFIG)
    assert (breaker.name, breaker.config, breaker.state) == ("my-service", CONFIG, CircuitState.CLOSED)
    assert breaker.metrics.name == "my-service"


def test_the_defaults_are_the_guide_s() -> None:  # row 9
    assert CircuitBreaker("test").config == CircuitBreakerConfig(
        failure_threshold=5,
        recovery_timeout=60,
        half_open_max_calls=3,
        success_threshold=2,
        timeout=30.0,
        slow_call_threshold=5.0,
        minimum_throughput=5,
    )


def test_custom_numbers_are_visible_in_the_config() -> None:  # row 10
    config = CircuitBreakerConfig(failure_threshold=10, recovery_timeout=120, half_open_max_calls=5)
    breaker = CircuitBreaker("test", config)
    assert breaker.config.failure_threshold == 10
    assert breaker.config.recovery_timeout == 120
    assert breaker.config.half_open_max_calls == 5


def test_states_are_text() -> None:  # row 11
    assert {state.name: state.value for state in CircuitState} == {
        "CLOSED": "closed",
        "OPEN": "open",
        "HALF_OPEN": "half_open",
    }


# Transitions


async def test_successes_keep_it_closed(breaker: CircuitBreaker) -> None:  # row 13
    await succeed(breaker, 5)
    assert breaker.state is CircuitState.CLOSED
    assert breaker.metrics.success_count == 5


async def test_it_opens_at_exactly_the_threshold(breaker: CircuitBreaker) -> None:  # rows 14, 15
    await fail(breaker, 2)
    assert breaker.state is CircuitState.CLOSED
    await fail(breaker)
    assert breaker.get_metrics().state is CircuitState.OPEN
    assert breaker.metrics.consecutive_failures == breaker.metrics.failure_count == 3


@pytest.mark.parametrize(
    ("threshold", "throughput", "calls", "state"),
    [(3, 5, 3, CircuitState.CLOSED), (2, 5, 2, CircuitState.CLOSED), (3, 3, 3, CircuitState.OPEN)],
)
async def test_it_opens_only_with_enough_traffic(
    threshold: int, throughput: int, calls: int, state: CircuitState, clock: StoppedClock
) -> None:  # rows 16, 17
    breaker = breaker_with(clock, failure_threshold=threshold, minimum_throughput=throughput)
    await fail(breaker, calls)
    assert breaker.state is state
    assert breaker.metrics.failure_count == breaker.metrics.total_calls == calls


async def test_one_success_breaks_a_row_of_failures(breaker: CircuitBreaker) -> None:  # row 18
    await fail(breaker, 2)
    await succeed(breaker)
    assert breaker.state is CircuitState.CLOSED
    assert (breaker.metrics.consecutive_failures, breaker.metrics.consecutive_successes) == (0, 1)


async def test_open_rejects_at_once_by_name_and_without_calling(breaker: CircuitBreaker) -> None:  # row 19
    await fail(breaker, 3)
    called: list[str] = []

    async def operation() -> None:
        called.append("called")

    with pytest.raises(CircuitBreakerError, match="'test' is OPEN, blocking requests"):
        await breaker.call(operation)
    assert called == []


async def test_a_rejection_says_when_to_come_back(breaker: CircuitBreaker, clock: StoppedClock) -> None:
    await fail(breaker, 3)
    clock.advance(40)
    with pytest.raises(CircuitBreakerError) as rejected:
        await breaker.call(works)
    assert rejected.value.retry_after == 20.0


async def test_rejected_calls_are_not_counted(breaker: CircuitBreaker) -> None:  # row 20
    await fail(breaker, 3)
    for _ in range(2):
        with pytest.raises(CircuitBreakerError):
            await breaker.call(works)
    assert breaker.metrics.failure_count == breaker.metrics.total_calls == 3


async def test_after_the_recovery_time_the_next_call_is_let_through(
    breaker: CircuitBreaker, clock: StoppedClock
) -> None:  # row 21
    await fail(breaker, 3)
    clock.advance(60)
    assert breaker.state is CircuitState.OPEN, "the change waits for a call"
    await succeed(breaker)
    assert breaker.get_metrics().state is CircuitState.HALF_OPEN


@pytest.mark.parametrize("needed", [2, 3])
async def test_it_closes_after_enough_good_probes_in_a_row(needed: int, clock: StoppedClock) -> None:  # row 22
    breaker = breaker_with(clock, success_threshold=needed, half_open_max_calls=3)
    await half_opened(breaker, clock)
    await succeed(breaker, needed - 1)
    assert breaker.state == "closed"


async def test_closing_forgets_failures_and_keeps_the_rest(
    breaker: CircuitBreaker, clock: StoppedClock
) -> None:  # row 23
    await half_opened(breaker, clock)
    await succeed(breaker)
    metrics = breaker.metrics
    assert (metrics.consecutive_successes, metrics.consecutive_failures, metrics.failure_count) == (0, 0, 0)
    assert (metrics.success_count, metrics.total_calls, len(metrics.response_times)) == (2, 5, 2)
    assert metrics.last_failure_time is not None


async def test_a_failed_probe_reopens_and_restarts_the_recovery(
    breaker: CircuitBreaker, clock: StoppedClock
) -> None:  # row 24
    await half_opened(breaker, clock)
    await fail(breaker)
    assert breaker.state == "open"
    clock.advance(59)
    with pytest.raises(CircuitBreakerError):
        await breaker.call(works)


async def test_half_open_limits_the_calls_in_flight_and_not_their_number(clock: StoppedClock) -> None:  # row 25
    # Given a half-open circuit of two places, one probe done and two slow ones under way
    breaker = breaker_with(clock, half_open_max_calls=2, success_threshold=10)
    await half_opened(breaker, clock)
    gate = asyncio.Event()
    slow = [asyncio.create_task(breaker.call(gate.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    assert breaker.metrics.half_open_calls == 2
    # When a third comes, it is refused, and the slow ones finish normally
    with pytest.raises(CircuitBreakerError, match="max concurrent calls reached"):
        await breaker.call(works)
    gate.set()
    assert await asyncio.gather(*slow) == [True, True]


async def test_of_five_callers_racing_after_the_recovery_some_succeed_and_the_rest_is_told(
    breaker: CircuitBreaker, clock: StoppedClock
) -> None:  # row 26
    await fail(breaker, 3)
    clock.advance(60)
    gate = asyncio.Event()
    calls = [asyncio.create_task(breaker.call(gate.wait)) for _ in range(5)]
    await asyncio.sleep(0)
    gate.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert outcomes.count(True) == breaker.config.half_open_max_calls
    assert sum(isinstance(outcome, CircuitBreakerError) for outcome in outcomes) == 2
    assert breaker.state in (CircuitState.HALF_OPEN, CircuitState.CLOSED)


async def test_entering_half_open_starts_with_no_probe_and_no_success(
    breaker: CircuitBreaker, clock: StoppedClock
) -> None:  # row 27
    await succeed(breaker, 4)
    await fail(breaker, 3)
    clock.advance(60)
    async with breaker.protect():
        assert (breaker.metrics.half_open_calls, breaker.metrics.consecutive_successes) == (1, 0)


async def test_news_of_a_call_from_before_the_opening_is_counted_and_moves_nothing(
    breaker: CircuitBreaker, clock: StoppedClock
) -> None:  # row 28, with the deviation that late news never moves the recovery's clock
    gate = asyncio.Event()

    async def fails_late() -> None:
        await gate.wait()
        raise ServiceTrouble

    late = asyncio.create_task(breaker.call(fails_late))
    await asyncio.sleep(0)
    await fail(breaker, 3)
    clock.advance(50)
    gate.set()
    with pytest.raises(ServiceTrouble):
        await late
    assert (breaker.state, breaker.metrics.total_calls) == (CircuitState.OPEN, 4)
    clock.advance(10)
    await succeed(breaker)


async def test_a_cancelled_call_is_neither_and_frees_its_place(
    breaker: CircuitBreaker, clock: StoppedClock
) -> None:  # row 29
    await half_opened(breaker, clock)
    before = breaker.metrics.total_calls
    probe = asyncio.create_task(breaker.call(never_ends))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert (breaker.metrics.half_open_calls, breaker.metrics.total_calls) == (0, before)


# What is a failure


@pytest.mark.parametrize("error", [ValueError("bad"), ServiceTrouble("down"), CircuitBreakerError("another's")])
async def test_any_exception_counts_and_comes_out_unchanged(
    error: Exception, breaker: CircuitBreaker
) -> None:  # row 30
    async def operation() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await breaker.call(operation)
    assert raised.value is error
    assert breaker.metrics.failure_count == 1


async def test_timeouts_count_as_failures(clock: StoppedClock) -> None:  # rows 31, 34
    breaker = breaker_with(clock, failure_threshold=2, timeout=0.005)
    for _ in range(2):
        with pytest.raises(asyncio.TimeoutError):
            await breaker.call(never_ends)
    assert (breaker.state, breaker.metrics.failure_count) == (CircuitState.OPEN, 2)


# call and protect


async def test_call_hands_arguments_on_and_the_result_back(breaker: CircuitBreaker) -> None:  # row 32
    async def add(left: int, *, right: int) -> int:
        return left + right

    assert await breaker.call(add, 10, right=20) == 30


async def test_a_timeout_given_to_call_wins_in_both_directions(clock: StoppedClock) -> None:  # row 33
    hurried = breaker_with(clock, timeout=0.005)
    patient = breaker_with(clock, timeout=30.0)

    async def takes_a_moment() -> str:
        await asyncio.sleep(0.02)
        return "done"

    assert await hurried.call(takes_a_moment, timeout=30.0) == "done"
    with pytest.raises(TimeoutError):
        await patient.call(takes_a_moment, timeout=0.005)


@pytest.mark.parametrize("absent", [0, None])
async def test_no_timeout_given_to_call_means_the_config_s(
    absent: float | None, clock: StoppedClock
) -> None:  # row 33
    with pytest.raises(TimeoutError):
        await breaker_with(clock, timeout=0.005).call(never_ends, timeout=absent)


@pytest.mark.parametrize("func", [asyncio.sleep, lambda _: asyncio.sleep(0)])
async def test_any_callable_that_returns_an_awaitable_will_do(
    func: Callable[[float], Awaitable[None]], breaker: CircuitBreaker
) -> None:  # row 35
    assert await breaker.call(func, 0) is None  # type: ignore[func-returns-value] # that it returns is the point


async def test_protect_counts_a_block_that_ends_well(breaker: CircuitBreaker) -> None:  # row 36
    async with breaker.protect():
        pass
    assert breaker.metrics.success_count == 1


async def test_protect_counts_a_block_that_fails_and_lets_its_error_out(breaker: CircuitBreaker) -> None:  # row 36
    with pytest.raises(ServiceTrouble):
        async with breaker.protect():
            raise ServiceTrouble
    assert breaker.metrics.failure_count == 1


async def test_protect_refuses_before_the_block_begins(breaker: CircuitBreaker) -> None:  # rows 36, 46
    await breaker.force_open()
    with pytest.raises(CircuitBreakerError, match="is OPEN"):
        async with breaker.protect():
            pytest.fail("the block ran")


async def test_protect_has_no_timeout_of_its_own(clock: StoppedClock) -> None:  # row 37
    async with breaker_with(clock, timeout=0.001).protect():
        await asyncio.sleep(0.01)


async def test_concurrent_calls_all_run_while_closed(breaker: CircuitBreaker) -> None:  # row 38
    assert await asyncio.gather(*(breaker.call(works) for _ in range(10))) == ["done"] * 10
    assert breaker.metrics.success_count == breaker.metrics.total_calls == 10


async def test_each_concurrent_caller_sees_its_own_failure(clock: StoppedClock) -> None:  # row 38
    breaker = breaker_with(clock, failure_threshold=10)

    async def fail_as(number: int) -> None:
        await asyncio.sleep(0)
        raise ValueError(number)

    outcomes = await asyncio.gather(*(breaker.call(fail_as, n) for n in range(5)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["0", "1", "2", "3", "4"]
    assert breaker.metrics.failure_count == breaker.metrics.total_calls == 5


# Metrics


def test_metrics_begin_at_zero(breaker: CircuitBreaker) -> None:  # rows 39, 40
    metrics = breaker.get_metrics()
    assert metrics is breaker.metrics, "the live object"
    assert (metrics.name, metrics.state) == ("test", CircuitState.CLOSED)
    assert (metrics.failure_count, metrics.success_count, metrics.total_calls, metrics.slow_calls) == (0, 0, 0, 0)
    assert (metrics.consecutive_failures, metrics.consecutive_successes, metrics.half_open_calls) == (0, 0, 0)
    assert (metrics.error_rate, metrics.response_times, metrics.avg_response_time) == (0.0, [], 0.0)
    assert metrics.last_failure_time is None
    assert metrics.state_change_time > 0


@pytest.mark.parametrize(("good", "bad", "rate"), [(7, 3, 0.3), (0, 5, 1.0), (4, 0, 0.0)])
async def test_the_error_rate_is_failures_per_call(
    good: int, bad: int, rate: float, clock: StoppedClock
) -> None:  # row 41
    breaker = breaker_with(clock, failure_threshold=100)
    await succeed(breaker, good)
    await fail(breaker, bad)
    assert breaker.metrics.error_rate == pytest.approx(rate)


async def test_durations_of_successes_are_kept(breaker: CircuitBreaker, clock: StoppedClock) -> None:  # row 42
    async def takes(seconds: float) -> None:
        clock.advance(seconds)

    for seconds in (0.1, 0.2, 0.3):
        await breaker.call(takes, seconds)
    await fail(breaker)
    assert breaker.metrics.response_times == pytest.approx([0.1, 0.2, 0.3])
    assert breaker.metrics.avg_response_time == pytest.approx(0.2)


async def test_only_the_last_hundred_durations_are_kept(breaker: CircuitBreaker) -> None:  # row 42
    await succeed(breaker, 101)
    assert len(breaker.metrics.response_times) == 100


async def test_slow_successes_are_counted_and_open_nothing(clock: StoppedClock) -> None:  # row 43
    breaker = breaker_with(clock, slow_call_threshold=5.0)

    async def takes(seconds: float, error: Exception | None = None) -> None:
        clock.advance(seconds)
        if error:
            raise error

    await breaker.call(takes, 4.0)
    await breaker.call(takes, 5.0)
    with pytest.raises(ServiceTrouble):
        await breaker.call(takes, 9.0, ServiceTrouble())
    assert breaker.metrics.slow_calls == 1
    assert breaker.state is CircuitState.CLOSED


async def test_metrics_as_a_dict_are_plain_json(breaker: CircuitBreaker) -> None:  # row 44
    await succeed(breaker)
    told = breaker.metrics.to_dict()
    assert told == {
        "name": "test",
        "state": "closed",
        "failure_count": 0,
        "success_count": 1,
        "total_calls": 1,
        "consecutive_failures": 0,
        "consecutive_successes": 1,
        "error_rate": 0.0,
        "avg_response_time": 0.0,
        "slow_calls": 0,
        "last_failure_time": None,
    }


# Manual control


async def test_reset_closes_and_begins_a_new_count(breaker: CircuitBreaker) -> None:  # row 45
    await fail(breaker, 3)
    stale = breaker.metrics
    await breaker.reset()
    assert breaker.state == "closed"
    assert (breaker.metrics.failure_count, breaker.metrics.success_count) == (0, 0)
    assert breaker.metrics is not stale
    await succeed(breaker)


async def test_forced_open_it_rejects_and_keeps_its_counts(breaker: CircuitBreaker) -> None:  # row 46
    await succeed(breaker)
    await breaker.force_open()
    assert breaker.state == "open"
    with pytest.raises(CircuitBreakerError):
        await breaker.call(works)
    assert breaker.metrics.total_calls == 1
    assert breaker.metrics.last_failure_time is not None


async def test_forced_open_it_recovers_by_itself(breaker: CircuitBreaker, clock: StoppedClock) -> None:  # row 46
    await breaker.force_open()
    clock.advance(60)
    await succeed(breaker, 2)
    assert breaker.state is CircuitState.CLOSED


async def test_each_change_of_state_is_told_once_with_its_cause(
    breaker: CircuitBreaker, clock: StoppedClock, facts: list[events.Event]
) -> None:
    await half_opened(breaker, clock)
    await succeed(breaker)
    await breaker.force_open()
    await breaker.reset()
    assert facts == [
        events.CircuitChanged("test", "closed", "open", "failure_threshold failures in a row"),
        events.CircuitChanged("test", "open", "half_open", "recovery_timeout passed"),
        events.CircuitChanged("test", "half_open", "closed", "success_threshold probes succeeded"),
        events.CircuitChanged("test", "closed", "open", "opened by hand"),
        events.CircuitChanged("test", "open", "closed", "reset by hand"),
    ]
