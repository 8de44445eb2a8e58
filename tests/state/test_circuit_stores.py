"""What every `CircuitStore` promises, whichever place it keeps a circuit in.

A new adapter joins by one line in `STORES`. Coroutines are run by `asyncio.run`, in as many threads as a test
likes: a store is safe under both.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from bridge_tasks.resilience.policy.breaker import (
    Circuit,
    CircuitBreakerConfig,
    CircuitState,
    Outcome,
    Permit,
    Rejection,
)
from bridge_tasks.resilience.state.local import LocalCircuitStore
from bridge_tasks.resilience.state.port import CircuitStore, Moved
from tests.stopped_clock import StoppedClock

T = TypeVar("T")
OpenStore = Callable[[CircuitBreakerConfig, Callable[[], float]], CircuitStore]

STORES: dict[str, OpenStore] = {"local": LocalCircuitStore}

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
CONFIG = CircuitBreakerConfig(
    failure_threshold=3, recovery_timeout=60, half_open_max_calls=2, success_threshold=2, minimum_throughput=1
)
THREADS = 64


class GenerousClock(StoppedClock):
    """A clock that lets another thread run whenever it is asked: a decision without a lock would soon be torn."""

    def __call__(self) -> float:
        time.sleep(0)
        return super().__call__()


@pytest.fixture
def clock() -> StoppedClock:
    return GenerousClock()


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, clock: StoppedClock) -> CircuitStore:
    return STORES[request.param](CONFIG, clock)


def permit(store: CircuitStore) -> Permit:
    _, decision = asyncio.run(store.admit())
    assert isinstance(decision, Permit)
    return decision


def record(store: CircuitStore, granted: Permit, outcome: Outcome) -> Moved:
    return asyncio.run(store.record(granted, outcome))


def open_by_failures(store: CircuitStore) -> None:
    for _ in range(CONFIG.failure_threshold):
        record(store, permit(store), Outcome.FAILURE)


def at_once(work: Callable[[], Coroutine[Any, Any, T]]) -> list[T]:
    """Run `work` in 64 threads that all start together."""
    ready = threading.Barrier(THREADS)

    def one(_: int) -> T:
        ready.wait()
        return asyncio.run(work())

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


def transitions(moves: list[Moved]) -> list[tuple[CircuitState, CircuitState]]:
    return [(move.before.state, move.after.state) for move in moves if move.before.state is not move.after.state]


def test_a_new_circuit_is_closed_and_lets_calls_through(store: CircuitStore) -> None:
    moved, decision = asyncio.run(store.admit())
    assert moved == Moved(Circuit(), Circuit())
    assert decision == Permit(epoch=0)


def test_the_outcome_that_opens_a_circuit_is_told_so(store: CircuitStore) -> None:
    # Given one failure less than the threshold
    for _ in range(CONFIG.failure_threshold - 1):
        assert transitions([record(store, permit(store), Outcome.FAILURE)]) == []
    # When the next one comes
    moved = record(store, permit(store), Outcome.FAILURE)
    # Then its teller sees both states
    assert transitions([moved]) == [(CLOSED, OPEN)]


def test_an_open_circuit_refuses_with_the_time_left_by_the_injected_clock(
    store: CircuitStore, clock: StoppedClock
) -> None:
    open_by_failures(store)
    clock.advance(59)
    moved, decision = asyncio.run(store.admit())
    assert isinstance(decision, Rejection)
    assert decision.retry_after == pytest.approx(1.0)
    assert moved.before == moved.after


def test_enough_good_probes_close_it_again(store: CircuitStore, clock: StoppedClock) -> None:
    open_by_failures(store)
    clock.advance(60)
    first = permit(store)
    assert transitions([record(store, first, Outcome.SUCCESS)]) == []
    assert transitions([record(store, permit(store), Outcome.SUCCESS)]) == [(HALF_OPEN, CLOSED)]


def test_people_open_and_close_it_by_hand(store: CircuitStore, clock: StoppedClock) -> None:
    opened = asyncio.run(store.force_open())
    assert transitions([opened]) == [(CLOSED, OPEN)]
    assert opened.after.opened_at == clock.now
    closed = asyncio.run(store.reset())
    assert transitions([closed]) == [(OPEN, CLOSED)]
    assert closed.after.total_calls == 0


def test_a_permit_from_before_a_reset_is_late_news(store: CircuitStore) -> None:
    slow = permit(store)
    asyncio.run(store.reset())
    moved = record(store, slow, Outcome.FAILURE)
    assert moved.after.consecutive_failures == 0
    assert moved.after.epoch == moved.before.epoch


def test_of_64_threads_racing_to_an_open_circuit_only_the_limit_gets_through_after_its_time(
    store: CircuitStore, clock: StoppedClock
) -> None:
    open_by_failures(store)
    clock.advance(60)
    answers = at_once(store.admit)
    decisions = [decision for _, decision in answers]
    assert sum(isinstance(decision, Permit) for decision in decisions) == CONFIG.half_open_max_calls
    assert transitions([moved for moved, _ in answers]) == [(OPEN, HALF_OPEN)], "one caller makes the transition"


def test_of_64_threads_failing_at_once_exactly_one_opens_the_circuit_and_none_is_lost(store: CircuitStore) -> None:
    permits = [permit(store) for _ in range(THREADS)]
    moves = at_once(lambda: store.record(permits.pop(), Outcome.FAILURE))
    assert transitions(moves) == [(CLOSED, OPEN)]
    assert max(move.after.total_calls for move in moves) == THREADS


def test_64_threads_probing_at_once_never_exceed_the_limit_nor_leak_a_place(
    store: CircuitStore, clock: StoppedClock
) -> None:
    open_by_failures(store)
    clock.advance(60)

    async def probe() -> int:
        moved, decision = await store.admit()
        if isinstance(decision, Permit):
            await store.record(decision, Outcome.NEUTRAL)
        return moved.after.in_flight

    assert max(at_once(probe)) <= CONFIG.half_open_max_calls
    assert asyncio.run(store.admit())[0].before.in_flight == 0
