"""What is held back, for how long, and what the fleet hears of it; nothing here takes real time."""

import itertools
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from bridge_tasks import events
from bridge_tasks.errors import CircuitBreakerError, RateLimited, ServiceBusy
from bridge_tasks.resilience.limits import REFRESH, ServiceLimits
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.fleet import News, Pulse
from bridge_tasks.resilience.policy.limits import Grant, LimitsConfig, Rate
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.state.limits_port import LimitStore
from bridge_tasks.resilience.state.local_limits import LocalLimitStore
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.deadline import within
from bridge_tasks.resilience.transport.limiting import LimitingTransport
from bridge_tasks.resilience.transport.retrying import RetryingTransport
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock
from tests.transports.scripted import Line, Scripted, asked

SIXTY = LimitsConfig(per_minute={"stamp": 60}, max_wait=0.2)
"""One token a second, one at a time."""


class Watched(LocalLimitStore):
    """A store that remembers what it was told: each entry would be a round trip."""

    def __init__(self, clock: StoppedClock, config: BudgetConfig | None = None) -> None:
        super().__init__(config or BudgetConfig(), clock)
        self.told: list[News] = []
        self.wanted: list[int] = []

    async def pulse(self, news: News) -> Pulse:
        self.told.append(news)
        return await super().pulse(news)

    async def take(self, group: str, rate: Rate, pace: int, want: int, patience: int) -> Grant:
        self.wanted.append(want)
        return await super().take(group, rate, pace, want, patience)


class Process:
    """One process that calls the service: its view of the limits, over a store that others may share."""

    def __init__(
        self,
        clock: StoppedClock,
        *script: Line,
        store: LimitStore | None = None,
        limits: LimitsConfig | None = None,
        chance: float = 0.0,
        tries: int = 1,
        initial: float = 1.0,
        patience: float = 1000.0,
        budget: BudgetConfig | None = None,
    ) -> None:
        self.inner = Scripted(*script)
        self.bottom = Bottom(connect=lambda: self.inner, sleep=clock.sleep, clock=clock, chance=lambda: chance)
        self.limits = ServiceLimits(
            "Service",
            limits or LimitsConfig(),
            budget or BudgetConfig(),
            clock=clock,
            chance=self.bottom.chance,
            store=store,
        )
        self.http = RetryingTransport(
            LimitingTransport(self.inner, limits=self.limits, bottom=self.bottom),
            config=RetryConfig(attempts=tries, initial=initial, patience=patience),
            bottom=self.bottom,
            limits=self.limits,
        )

    def send(self) -> int:
        return finished(self.http.handle_async_request(asked())).status_code

    @property
    def sent(self) -> int:
        return len(self.inner.urls)


def busy(seconds: str, status: int = 503) -> httpx.Response:
    return httpx.Response(status, headers={"Retry-After": seconds})


# ------------------------------------------------------------------- Retry-After


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_asks_for_patience_is_left_alone_until_its_time_is_over(
    status: int, clock: StoppedClock, facts: list[events.Event]
) -> None:
    process = Process(clock, busy("7", status), 200)
    assert process.send() == status
    clock.advance(4)
    with pytest.raises(ServiceBusy) as held:
        process.send()
    assert held.value.retry_after == 3.0
    assert held.value.unsent
    assert process.sent == 1
    clock.advance(3)
    assert process.send() == 200
    assert facts == [
        events.PatienceAsked("Service", 7.0),
        events.CallHeldBack("Service", "stamp", 3.0, "service busy"),
    ]


def test_a_date_is_understood_as_well_as_seconds(clock: StoppedClock) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    process = Process(clock, busy(date), 200)
    process.send()
    with pytest.raises(ServiceBusy) as held:
        process.send()
    assert held.value.retry_after == pytest.approx(30, abs=1.5)


@pytest.mark.parametrize("hint", ["soon", "-1", "0", "", "Mon, 01 Jan 2001 00:00:00 GMT"])
def test_garbage_and_the_past_hold_nobody_back(hint: str, clock: StoppedClock) -> None:
    process = Process(clock, busy(hint), 200)
    process.send()
    assert process.send() == 200


def test_nobody_is_held_longer_than_a_minute(clock: StoppedClock) -> None:
    process = Process(clock, busy("3600"), 200)
    process.send()
    clock.advance(59)
    with pytest.raises(ServiceBusy):
        process.send()
    clock.advance(1)
    assert process.send() == 200


def test_all_processes_hear_of_it_within_a_second(clock: StoppedClock) -> None:
    # Given two processes, of which the other has just asked how things are
    store = Watched(clock)
    one, other = Process(clock, busy("7"), store=store), Process(clock, 200, store=store)
    other.send()
    # When one is told to wait
    one.send()
    # Then the other goes on for less than a second, and is held too
    clock.advance(REFRESH - 0.01)
    assert other.send() == 200
    clock.advance(0.01)
    with pytest.raises(ServiceBusy) as held:
        other.send()
    assert held.value.retry_after == 6.0


def test_processes_come_back_spread_over_a_tenth_of_the_time(clock: StoppedClock) -> None:
    store = Watched(clock)
    Process(clock, busy("10"), store=store).send()
    late = Process(clock, 200, store=store, chance=0.5)
    with pytest.raises(ServiceBusy) as held:
        late.send()
    assert held.value.retry_after == 10.5
    clock.advance(5)
    with pytest.raises(ServiceBusy) as held:
        late.send()
    assert held.value.retry_after == 5.5, "drawn once, not once a second"


def test_a_hold_that_comes_back_a_little_longer_than_it_was_told_is_no_news(
    clock: StoppedClock, facts: list[events.Event]
) -> None:
    store = Watched(clock)
    process = Process(clock, busy("7"), 200, store=store)
    process.send()
    clock.advance(1)
    finished(store.pulse(News(hold=6_100_000)))
    with pytest.raises(ServiceBusy) as held:
        process.send()
    assert held.value.retry_after == 6.0
    assert [fact for fact in facts if isinstance(fact, events.PatienceAsked)] == [
        events.PatienceAsked("Service", 7.0)
    ]


def test_a_retry_waits_for_the_hold_that_its_own_try_has_caused(clock: StoppedClock) -> None:
    process = Process(clock, busy("7", 429), 200, tries=2, chance=0.5)
    assert process.send() == 200
    assert sum(clock.naps) == pytest.approx(7.35)


def test_a_hold_beyond_our_patience_ends_the_tries_and_goes_to_the_caller(clock: StoppedClock) -> None:
    process = Process(clock, busy("7", 429), 200, tries=3, patience=1.0)
    assert process.send() == 429
    assert clock.naps == []


def test_the_rest_of_a_hold_that_is_short_enough_is_waited_out(clock: StoppedClock) -> None:
    process = Process(clock, busy("7"), 200)
    process.send()
    clock.advance(6.9)
    assert process.send() == 200
    assert clock.naps == [pytest.approx(0.1)]


# ------------------------------------------------------------------------- rates


def test_a_call_waits_for_its_turn_a_little_and_is_told_when_to_come_back_otherwise(
    clock: StoppedClock, facts: list[events.Event]
) -> None:
    process = Process(clock, 200, limits=SIXTY)
    process.send()
    clock.advance(0.9)
    assert process.send() == 200
    assert clock.naps == [pytest.approx(0.1167, abs=0.01)]
    with pytest.raises(RateLimited) as limited:
        process.send()
    assert limited.value.retry_after == pytest.approx(1.0167, abs=0.001)
    assert limited.value.unsent
    assert process.sent == 2
    assert [fact.cause for fact in facts if isinstance(fact, events.CallHeldBack)] == ["rate limit"]


def test_no_call_waits_past_its_deadline(clock: StoppedClock) -> None:
    process = Process(clock, 200, limits=SIXTY)
    process.send()
    clock.advance(0.9)
    with within(0.05, clock), pytest.raises(RateLimited):
        process.send()


def test_each_try_takes_a_token_and_a_retry_without_one_ends_the_tries(clock: StoppedClock) -> None:
    process = Process(clock, 502, limits=LimitsConfig(per_minute={"stamp": 30}), tries=3)
    with pytest.raises(RateLimited) as limited:
        process.send()
    assert process.sent == 1
    assert not limited.value.unsent, "the first try was sent, and a job that met this has used an attempt"


def test_a_status_that_is_an_answer_is_no_complaint(clock: StoppedClock) -> None:
    process = Process(clock, busy("7"))
    for _ in range(2):
        answer = finished(process.http.handle_async_request(asked(expected=frozenset({503}))))
        assert answer.status_code == 503
    assert process.sent == 2


def test_a_call_that_the_open_circuit_refuses_gives_its_token_back(clock: StoppedClock) -> None:
    process = Process(clock, CircuitBreakerError("open"), 200, limits=SIXTY)
    with pytest.raises(CircuitBreakerError):
        process.send()
    assert process.send() == 200


def test_a_busy_process_takes_its_tokens_in_blocks_that_grow_and_an_idle_one_in_small_ones(
    clock: StoppedClock,
) -> None:
    store = Watched(clock)
    process = Process(clock, 200, limits=LimitsConfig(per_minute={"stamp": 6000}), store=store)
    for _ in range(200):
        clock.advance(0.01)
        process.send()
    assert store.wanted[:6] == [1, 2, 4, 8, 16, 25]
    assert len(store.wanted) < 20, "a round trip for one call in ten at most"
    largest = store.wanted[-1]
    for _ in range(5):
        clock.advance(5)
        process.send()
    assert store.wanted[-1] < largest / 4


def test_a_token_that_was_kept_too_long_is_void(clock: StoppedClock) -> None:
    store = Watched(clock)
    process = Process(clock, 200, limits=LimitsConfig(per_minute={"stamp": 6000}), store=store)
    for _ in range(3):  # 1 token, then 2: one of them is left
        process.send()
    asked_before = len(store.wanted)
    process.inner.urls.clear()
    clock.advance(1.0)
    process.send()
    assert len(store.wanted) == asked_before + 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_throttles_is_asked_more_slowly_and_faster_again_later(
    status: int, clock: StoppedClock, facts: list[events.Event]
) -> None:
    process = Process(clock, status, 200, limits=LimitsConfig(per_minute={"stamp": 60}, max_wait=60))

    def pause() -> float:
        clock.naps.clear()
        process.send()
        return clock.naps[0] if clock.naps else 0.0

    process.send()
    process.send()
    full = 61 / 60
    assert pause() == pytest.approx(full / 0.7, abs=0.1)
    clock.advance(20)
    assert pause() == 0.0
    assert pause() == pytest.approx(full, abs=0.02)
    assert events.PaceLowered("Service", 0.7) in facts


# ------------------------------------------------------------------ retry budget


def test_a_retry_that_the_budget_refuses_ends_the_tries_with_the_last_outcome(
    clock: StoppedClock, facts: list[events.Event]
) -> None:
    last = httpx.ReadTimeout("the second")
    process = Process(clock, 503, last, 200, tries=5, budget=BudgetConfig(ratio=0, reserve=1))
    with pytest.raises(httpx.ReadTimeout) as raised:
        process.send()
    assert raised.value is last
    assert process.sent == 2
    assert events.RetryRefused("Service", "stamp", 2, "ReadTimeout") in facts


def test_a_dead_service_is_offered_at_most_a_fifth_more_by_a_fleet_of_processes(clock: StoppedClock) -> None:
    # Given 20 processes of which each has a full quota of its own, and a service that is dead
    store = Watched(clock)
    fleet = [Process(clock, httpx.ConnectError("refused"), store=store, tries=3, initial=0.0) for _ in range(20)]
    # When they make 2000 calls in 40 seconds
    for process in itertools.islice(itertools.cycle(fleet), 2000):
        with pytest.raises(httpx.ConnectError):
            process.send()
        clock.advance(0.02)
    # Then it gets what its calls and a fifth of them bring
    assert 2000 < sum(process.sent for process in fleet) <= 1.2 * 2000


def test_while_redis_is_away_a_process_by_itself_keeps_to_the_same_share(clock: StoppedClock) -> None:
    process = Process(clock, 503, tries=3, initial=0.0)
    for _ in range(500):
        process.send()
        clock.advance(0.05)
    assert 500 < process.sent <= 1.2 * 500


def test_a_quota_that_is_used_up_refuses_without_asking_anybody_and_fills_with_successes(
    clock: StoppedClock,
) -> None:
    generous = BudgetConfig(ratio=1000, quota=28)
    store = Watched(clock, generous)
    process = Process(clock, *[502] * 4, 200, store=store, tries=2, budget=generous)
    process.send()
    process.send()
    before = len(store.told)
    assert process.sent == 4
    process.inner._script[:] = [502, 200]
    assert process.send() == 502, "28 tokens have bought two retries"
    assert len(store.told) == before
    for _ in range(14):
        process.send()
    process.inner._script[:] = [502, 200]
    assert process.send() == 200


def test_a_success_costs_no_more_than_one_exchange_a_second(clock: StoppedClock) -> None:
    store = Watched(clock)
    process = Process(clock, 200, store=store, tries=3)
    for _ in range(1000):
        process.send()
        clock.advance(0.01)
    assert 10 <= len(store.told) <= 11
    assert sum(news.tries for news in store.told) >= 900


def test_once_the_fleet_has_refused_a_retry_nobody_asks_again_for_a_second(clock: StoppedClock) -> None:
    store = Watched(clock, BudgetConfig(ratio=0, reserve=0))
    process = Process(clock, 502, store=store, tries=3)
    for _ in range(50):
        process.send()
    assert [news.wants_retry for news in store.told].count(True) == 1


def test_closing_the_outermost_closes_the_innermost(clock: StoppedClock) -> None:
    process = Process(clock, 200)
    finished(process.http.aclose())
    assert process.inner.closed
