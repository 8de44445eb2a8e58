"""What every `CircuitStore` promises, whichever place it keeps a circuit in.

Both clocks, the process's and the server's, are the test's. Coroutines are run to their end in as many threads as
a test likes: a store is safe under both.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import redis

from bridge_tasks import events
from bridge_tasks.resilience.policy.breaker import (
    Cause,
    CircuitBreakerConfig,
    CircuitState,
    Manual,
    Order,
    Outcome,
    Permit,
    Rejection,
)
from bridge_tasks.resilience.state.local import LocalCircuitStore
from bridge_tasks.resilience.state.port import Change, CircuitStore
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.circuits import circuit_store, quick
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock

T = TypeVar("T")

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
CONFIG = CircuitBreakerConfig(
    failure_threshold=3, recovery_timeout=60, half_open_max_calls=2, success_threshold=2, minimum_throughput=1
)
LEASE = 31.0
THREADS = 64
_names = itertools.count()


class GenerousClock(StoppedClock):
    """A clock that lets another thread run whenever it is asked: a decision without a lock would soon be torn."""

    def __call__(self) -> float:
        time.sleep(0)
        return super().__call__()


@pytest.fixture
def clock() -> StoppedClock:
    return GenerousClock()


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with PrivateRedis() as server, quick(server.url, 5.0) as client:
        yield client


@pytest.fixture(params=["local", "redis"])
def store(
    request: pytest.FixtureRequest, clock: StoppedClock, client: redis.Redis, facts: list[events.Event]
) -> Iterator[CircuitStore]:
    if request.param == "local":
        yield LocalCircuitStore(CONFIG, clock)
    else:
        yield circuit_store(client, f"circuit-{next(_names)}", CONFIG, clock)
    assert not [fact for fact in facts if isinstance(fact, events.StoreLost)], "a script failed"


def admit(store: CircuitStore) -> Permit | Rejection:
    return finished(store.admit(LEASE))[0]


def permit(store: CircuitStore) -> Permit:
    decision = admit(store)
    assert isinstance(decision, Permit)
    return decision


def record(store: CircuitStore, granted: Permit, outcome: Outcome) -> Change | None:
    return finished(store.record(granted, outcome))


def open_by_failures(store: CircuitStore) -> Change | None:
    changes = [record(store, permit(store), Outcome.FAILURE) for _ in range(CONFIG.failure_threshold)]
    return changes[-1]


def at_once(work: Callable[[], T], threads: int = THREADS) -> list[T]:
    """Run `work` in threads that all start together."""
    ready = threading.Barrier(threads)

    def one(_: int) -> T:
        ready.wait()
        return work()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(threads)))


def test_a_new_circuit_is_closed_and_lets_calls_through(store: CircuitStore) -> None:
    decision, change = finished(store.admit(LEASE))
    assert isinstance(decision, Permit)
    assert change is None
    assert store.view().state is CLOSED


def test_the_outcome_that_opens_a_circuit_is_told_so(store: CircuitStore) -> None:
    # Given one failure less than the threshold
    for _ in range(CONFIG.failure_threshold - 1):
        assert record(store, permit(store), Outcome.FAILURE) is None
    # When the next one comes, then its teller learns of the transition
    assert record(store, permit(store), Outcome.FAILURE) == Change(CLOSED, OPEN, Cause.RUN)


def test_a_success_between_failures_breaks_the_row(store: CircuitStore) -> None:
    for outcome in (Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE):
        record(store, permit(store), outcome)
    assert store.view().state is CLOSED
    assert (store.view().failures, store.view().successes, store.view().consecutive_failures) == (4, 1, 2)


def test_every_success_is_in_view_at_once(store: CircuitStore) -> None:
    for count in range(1, 70):
        record(store, permit(store), Outcome.SUCCESS)
        seen = store.view()
        assert (seen.total_calls, seen.successes, seen.consecutive_successes) == (count, count, count)


def test_an_open_circuit_refuses_with_the_time_left_by_the_injected_clock(
    store: CircuitStore, clock: StoppedClock
) -> None:
    open_by_failures(store)
    clock.advance(59)
    decision = admit(store)
    assert isinstance(decision, Rejection)
    assert decision.retry_after == pytest.approx(1.0)


def test_enough_good_probes_close_it_again(store: CircuitStore, clock: StoppedClock) -> None:
    open_by_failures(store)
    clock.advance(60)
    decision, change = finished(store.admit(LEASE))
    assert isinstance(decision, Permit)
    assert change == Change(OPEN, HALF_OPEN, Cause.RECOVERY)
    assert record(store, decision, Outcome.SUCCESS) is None
    assert record(store, permit(store), Outcome.SUCCESS) == Change(HALF_OPEN, CLOSED, Cause.PROBES_GOOD)


def test_a_probe_that_says_nothing_gives_its_place_back(store: CircuitStore, clock: StoppedClock) -> None:
    open_by_failures(store)
    clock.advance(60)
    probes = [permit(store), permit(store)]
    assert isinstance(admit(store), Rejection)
    assert record(store, probes[0], Outcome.NEUTRAL) is None
    clock.advance(0.2)
    assert isinstance(admit(store), Permit)


def test_a_lost_probe_s_place_is_free_when_its_lease_is_over(store: CircuitStore, clock: StoppedClock) -> None:
    open_by_failures(store)
    clock.advance(60)
    lost = [permit(store), permit(store)]
    clock.advance(LEASE)
    # Two lost in a row say that this is no time to probe
    assert isinstance(admit(store), Rejection)
    assert (store.view().state, store.view().cause) == (OPEN, Cause.PROBES_LOST)
    clock.advance(60)
    assert isinstance(admit(store), Permit)
    # And what the lost ones say now changes nothing
    assert record(store, lost[0], Outcome.FAILURE) is None
    assert store.view().state is HALF_OPEN


def test_people_open_and_close_it_by_hand(store: CircuitStore) -> None:
    assert finished(store.order(Order.OPEN)) == Change(CLOSED, OPEN, Cause.OPENED)
    assert isinstance(admit(store), Rejection)
    assert finished(store.order(Order.RESET)) == Change(OPEN, CLOSED, Cause.RESET)
    assert store.view().total_calls == 0


def test_held_open_it_stays_open_and_disabled_it_stays_closed(store: CircuitStore, clock: StoppedClock) -> None:
    finished(store.order(Order.HOLD))
    clock.advance(10_000)
    assert isinstance(admit(store), Rejection)
    finished(store.order(Order.DISABLE))
    assert open_by_failures(store) is None
    assert (store.view().state, store.view().manual) == (CLOSED, Manual.DISABLED)


def test_what_was_counted_before_it_was_opened_by_hand_stays(store: CircuitStore) -> None:
    record(store, permit(store), Outcome.SUCCESS)
    finished(store.order(Order.OPEN))
    assert store.view().total_calls == 1


def test_a_permit_from_before_a_reset_is_late_news(store: CircuitStore) -> None:
    slow = permit(store)
    finished(store.order(Order.RESET))
    epoch = store.view().epoch
    record(store, slow, Outcome.FAILURE)
    assert store.view().consecutive_failures == 0
    assert store.view().epoch == epoch


def test_of_64_threads_racing_to_an_open_circuit_only_the_limit_gets_through_after_its_time(
    store: CircuitStore, clock: StoppedClock
) -> None:
    open_by_failures(store)
    clock.advance(60)
    decisions = at_once(lambda: admit(store))
    assert sum(isinstance(decision, Permit) for decision in decisions) == CONFIG.half_open_max_calls


def test_of_64_threads_that_fail_at_once_one_makes_the_transition(store: CircuitStore) -> None:
    def fail() -> Change | None:
        granted, _ = finished(store.admit(LEASE))
        return record(store, granted, Outcome.FAILURE) if isinstance(granted, Permit) else None

    changes = [change for change in at_once(fail) if change is not None]
    assert changes == [Change(CLOSED, OPEN, Cause.RUN)]


def test_no_place_is_lost_however_probes_come_and_go(store: CircuitStore, clock: StoppedClock) -> None:
    open_by_failures(store)
    clock.advance(60)

    def probe() -> int:
        decision = admit(store)
        if isinstance(decision, Permit):
            record(store, decision, Outcome.NEUTRAL)
        return store.view().in_flight

    assert max(at_once(probe)) <= CONFIG.half_open_max_calls
    clock.advance(0.2)
    assert isinstance(admit(store), Permit)
    assert store.view().in_flight == 1


def test_flushing_tells_nothing_new(store: CircuitStore) -> None:
    record(store, permit(store), Outcome.SUCCESS)
    assert finished(store.flush()) is None
    assert finished(store.flush()) is None
    assert store.view().total_calls == 1
