"""The circuit breaker's rules, told as stories, and then let loose on arbitrary histories. In seconds."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from bridge_tasks.resilience.policy import breaker
from bridge_tasks.resilience.policy.breaker import (
    TRANSITIONS,
    Cause,
    Circuit,
    CircuitBreakerConfig,
    CircuitState,
    Lease,
    Manual,
    News,
    Order,
    Outcome,
    Permit,
    Rejection,
    micros,
    ramp_left,
)

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
SUCCESS, FAILURE, NEUTRAL = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEUTRAL

RECOVERY = 60.0
LEASE = 31.0
CONFIG = CircuitBreakerConfig(
    failure_threshold=3,
    recovery_timeout=RECOVERY,
    half_open_max_calls=2,
    success_threshold=2,
    minimum_throughput=1,
)
RATES = replace(CONFIG, failure_threshold=1000, failure_rate_threshold=0.5, slow_rate_threshold=0.5)

_tokens = itertools.count(1)


def admit(
    circuit: Circuit, config: CircuitBreakerConfig, now: float, chance: float = 0.0
) -> tuple[Circuit, Permit | Rejection]:
    return breaker.admit(
        circuit, config, micros(now), token=str(next(_tokens)), lease=micros(LEASE), chance=chance
    )


def record(
    circuit: Circuit,
    config: CircuitBreakerConfig,
    permit: Permit,
    outcome: Outcome,
    now: float,
    *,
    slow: bool = False,
    reporter: str = "",
    chance: float = 0.0,
) -> Circuit:
    good, bad = outcome is SUCCESS, outcome is FAILURE
    news = News(permit.epoch, int(good), int(bad), int(slow), micros(now), permit.token, reporter)
    return breaker.report(circuit, config, news, micros(now), chance)


def obey(circuit: Circuit, order: Order, now: float = 0.0) -> Circuit:
    return breaker.obey(circuit, CONFIG, order, micros(now))


def admitted(circuit: Circuit, now: float = 0.0, config: CircuitBreakerConfig = CONFIG) -> tuple[Circuit, Permit]:
    circuit, decision = admit(circuit, config, now)
    assert isinstance(decision, Permit)
    return circuit, decision


def refused(circuit: Circuit, now: float, config: CircuitBreakerConfig = CONFIG) -> Rejection:
    after, decision = admit(circuit, config, now)
    assert isinstance(decision, Rejection)
    assert after == circuit, "a refusal changes nothing"
    return decision


def after(
    circuit: Circuit,
    *outcomes: Outcome,
    now: float = 0.0,
    config: CircuitBreakerConfig = CONFIG,
    slow: bool = False,
    reporter: str = "",
) -> Circuit:
    """Make one call after another, each with its outcome."""
    for outcome in outcomes:
        circuit, permit = admitted(circuit, now, config)
        circuit = record(circuit, config, permit, outcome, now, slow=slow, reporter=reporter)
    return circuit


def opened(now: float = 0.0) -> Circuit:
    return after(Circuit(), FAILURE, FAILURE, FAILURE, now=now)


def half_opened() -> Circuit:
    """Open, and then let the recovery time pass; the one probe said nothing."""
    return after(opened(), NEUTRAL, now=RECOVERY)


def lose_probes(circuit: Circuit, *, times: int, config: CircuitBreakerConfig = CONFIG) -> tuple[Circuit, float]:
    """Have probes taken by workers that are killed; return the circuit, and when the last lease is over."""
    now = RECOVERY
    for _ in range(times):
        circuit, _ = admitted(circuit, now, config)
        now += LEASE
    return circuit, now


STORIES: dict[
    tuple[CircuitState, Cause, CircuitState], tuple[Callable[[], Circuit], Callable[[Circuit], Circuit]]
] = {
    (CLOSED, Cause.RUN, OPEN): (
        lambda: after(Circuit(), FAILURE, FAILURE),
        lambda circuit: after(circuit, FAILURE),
    ),
    (CLOSED, Cause.RATE, OPEN): (
        lambda: after(Circuit(), *[SUCCESS] * 10, *[FAILURE] * 9, config=RATES),
        lambda circuit: after(circuit, FAILURE, config=RATES),
    ),
    (CLOSED, Cause.SLOW, OPEN): (
        lambda: after(after(Circuit(), *[SUCCESS] * 10, config=RATES), *[SUCCESS] * 9, config=RATES, slow=True),
        lambda circuit: after(circuit, SUCCESS, config=RATES, slow=True),
    ),
    (OPEN, Cause.RECOVERY, HALF_OPEN): (opened, lambda circuit: admitted(circuit, RECOVERY)[0]),
    (HALF_OPEN, Cause.PROBE_FAILED, OPEN): (half_opened, lambda circuit: after(circuit, FAILURE, now=RECOVERY)),
    (HALF_OPEN, Cause.PROBES_LOST, OPEN): (
        lambda: lose_probes(half_opened(), times=2)[0],
        lambda circuit: admit(circuit, CONFIG, RECOVERY + 2 * LEASE)[0],
    ),
    (HALF_OPEN, Cause.PROBES_GOOD, CLOSED): (
        lambda: after(half_opened(), SUCCESS, now=RECOVERY),
        lambda circuit: after(circuit, SUCCESS, now=RECOVERY),
    ),
}


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda move: f"{move[0]}-{move[1].name}-{move[2]}")
def test_each_transition_of_the_table_happens_for_its_cause_and_raises_the_epoch(
    transition: tuple[CircuitState, Cause, CircuitState],
) -> None:
    begin, then = STORIES[transition]
    before = begin()
    changed = then(before)
    assert (before.state, changed.cause, changed.state) == transition
    assert changed.epoch > before.epoch


@given(threshold=st.integers(1, 20), throughput=st.integers(0, 20))
def test_a_circuit_opens_at_exactly_the_threshold_once_there_was_enough_traffic(
    threshold: int, throughput: int
) -> None:
    config = CircuitBreakerConfig(failure_threshold=threshold, minimum_throughput=throughput)
    needed = max(threshold, throughput)
    almost = after(Circuit(), *[FAILURE] * (needed - 1), config=config)
    assert almost.state is CLOSED
    assert after(almost, FAILURE, config=config).state is OPEN


def test_one_success_breaks_a_row_of_failures() -> None:
    circuit = after(Circuit(), FAILURE, FAILURE, SUCCESS, FAILURE, FAILURE)
    assert circuit.state is CLOSED
    assert (circuit.failures, circuit.consecutive_failures) == (4, 2)


def test_a_success_from_before_the_first_failure_does_not_break_the_row() -> None:
    # Given two failures in a row from second 10 on
    circuit = after(Circuit(), FAILURE, FAILURE, now=10.0)
    # When a process tells at last of a success in second 9, together with a failure of its own
    told = breaker.report(circuit, CONFIG, News(0, 1, 1, succeeded_at=micros(9.0)), micros(10.1))
    # Then that is the third in a row; with a success in second 10 it would have been the first
    assert told.state is OPEN
    broken = breaker.report(circuit, CONFIG, News(0, 1, 1, succeeded_at=micros(10.0)), micros(10.1))
    assert (broken.state, broken.consecutive_failures) == (CLOSED, 1)


def test_an_open_circuit_refuses_until_its_time_is_over_and_says_how_long_that_is() -> None:
    circuit = opened(now=100.0)
    assert refused(circuit, 100.0).retry_after == RECOVERY
    assert refused(circuit, 159.0) == Rejection("is OPEN, blocking requests", 1.0)
    assert admitted(circuit, 160.0)[0].state is HALF_OPEN


def test_half_open_limits_the_calls_in_flight_and_not_their_number() -> None:
    # Given two probes in flight, which is the limit
    circuit, first = admitted(opened(), RECOVERY)
    circuit, _ = admitted(circuit, RECOVERY)
    assert "max concurrent calls reached" in refused(circuit, RECOVERY).reason
    # When one comes back, then another may go
    circuit = record(circuit, CONFIG, first, SUCCESS, RECOVERY)
    assert admitted(circuit, RECOVERY)[0].in_flight == 2


def test_a_neutral_probe_frees_its_place_and_says_nothing() -> None:
    circuit, probe = admitted(opened(), RECOVERY)
    assert record(circuit, CONFIG, probe, NEUTRAL, RECOVERY) == circuit._replace(leases=())


def test_a_failed_probe_reopens_whatever_the_throughput_and_starts_the_recovery_anew() -> None:
    config = replace(CONFIG, minimum_throughput=1000)
    circuit = after(obey(Circuit(), Order.OPEN), FAILURE, now=RECOVERY, config=config)
    assert (circuit.state, circuit.changed_at, circuit.open_for) == (OPEN, micros(RECOVERY), micros(RECOVERY))


def test_closing_forgets_failures_and_keeps_totals() -> None:
    circuit = after(opened(), SUCCESS, SUCCESS, now=RECOVERY)
    assert (circuit.state, circuit.failures, circuit.successes, circuit.total_calls) == (CLOSED, 0, 2, 5)
    assert (circuit.consecutive_failures, circuit.consecutive_successes, circuit.leases) == (0, 0, ())


@pytest.mark.parametrize("late", [SUCCESS, FAILURE])
def test_late_news_from_before_the_opening_is_counted_and_changes_nothing_else(late: Outcome) -> None:
    # Given a call that began while the circuit was closed
    circuit, slow = admitted(Circuit())
    circuit = after(circuit, FAILURE, FAILURE, FAILURE, now=10.0)
    # When its outcome comes after the circuit opened
    told = record(circuit, CONFIG, slow, late, now=50.0)
    # Then neither the state nor the recovery's clock has moved
    assert told.total_calls == circuit.total_calls + 1
    assert told._replace(total_calls=3, failures=3, successes=0) == circuit


def test_late_successes_do_not_help_to_close() -> None:
    circuit, slow = admitted(Circuit())
    circuit, slower = admitted(circuit)
    circuit = after(circuit, FAILURE, FAILURE, FAILURE)
    circuit = after(circuit, NEUTRAL, now=RECOVERY)
    for permit in (slow, slower):
        circuit = record(circuit, CONFIG, permit, SUCCESS, RECOVERY)
    assert (circuit.state, circuit.consecutive_successes) == (HALF_OPEN, 0)


# Rates


@pytest.mark.parametrize(("good", "bad", "state"), [(11, 9, CLOSED), (10, 10, OPEN), (9, 9, CLOSED)])
def test_the_failure_rate_opens_at_its_share_of_twenty_calls(good: int, bad: int, state: CircuitState) -> None:
    assert after(Circuit(), *[SUCCESS] * good, *[FAILURE] * bad, config=RATES).state is state


@pytest.mark.parametrize(("bad", "state"), [(9, CLOSED), (10, OPEN)])
def test_a_sudden_death_is_seen_after_ten_calls(bad: int, state: CircuitState) -> None:
    old = after(Circuit(), *[SUCCESS] * 100, now=7.0, config=RATES)
    assert after(old, *[FAILURE] * bad, now=9.0, config=RATES).state is state


@pytest.mark.parametrize(
    ("gap", "state"), [(0.0, OPEN), (1.0, OPEN), (9.0, OPEN), (10.0, CLOSED), (100.0, CLOSED)]
)
def test_the_window_forgets_what_is_ten_seconds_old(gap: float, state: CircuitState) -> None:
    circuit = after(Circuit(), *[FAILURE] * 9, *[SUCCESS] * 10, now=5.0, config=RATES)
    assert after(circuit, FAILURE, now=5.0 + gap, config=RATES).state is state


def test_both_rates_are_off_by_default() -> None:
    config = replace(CONFIG, failure_threshold=1000)
    circuit = after(after(Circuit(), *[FAILURE] * 200, config=config), *[SUCCESS] * 200, config=config, slow=True)
    assert circuit.state is CLOSED


def test_a_slow_probe_reopens_a_circuit_that_minds_slowness() -> None:
    circuit = admitted(obey(Circuit(), Order.OPEN), RECOVERY)[0]
    assert after(circuit, SUCCESS, now=RECOVERY, config=RATES, slow=True).state is OPEN
    assert after(circuit, SUCCESS, now=RECOVERY, config=CONFIG, slow=True).state is HALF_OPEN


# Who complains


def test_one_reporter_alone_among_others_does_not_open_the_circuit_and_is_told_so() -> None:
    circuit = after(Circuit(), NEUTRAL, now=1.0, reporter="healthy")
    circuit = after(circuit, *[FAILURE] * 50, now=2.0, reporter="poisoned")
    assert (circuit.state, circuit.suspect) == (CLOSED, "poisoned")


def test_a_second_reporter_s_failure_opens_it_at_once() -> None:
    circuit = after(Circuit(), NEUTRAL, now=1.0, reporter="one")
    circuit = after(circuit, *[FAILURE] * 3, now=2.0, reporter="two")
    assert after(circuit, FAILURE, now=2.0, reporter="one").state is OPEN


@pytest.mark.parametrize(("silent", "state"), [(9.9, CLOSED), (10.0, OPEN)])
def test_a_reporter_is_alone_when_nobody_else_was_heard_for_ten_seconds(
    silent: float, state: CircuitState
) -> None:
    circuit = after(Circuit(), NEUTRAL, now=1.0, reporter="gone")
    assert after(circuit, *[FAILURE] * 3, now=1.0 + silent, reporter="alone").state is state


# Coming back


def test_a_lease_that_ran_out_is_no_evidence_and_gives_its_place_back() -> None:
    circuit, now = lose_probes(half_opened(), times=1)
    circuit, _ = admitted(circuit, now)
    assert (circuit.state, circuit.in_flight, circuit.lost) == (HALF_OPEN, 1, 1)


def test_the_outcome_of_a_probe_whose_lease_ran_out_is_late_news() -> None:
    circuit, probe = admitted(half_opened(), RECOVERY)
    told = record(circuit, CONFIG, probe, FAILURE, RECOVERY + LEASE)
    assert (told.state, told.total_calls) == (HALF_OPEN, circuit.total_calls + 1)


def test_a_probe_that_comes_back_well_clears_the_lost_one_before_it() -> None:
    circuit, now = lose_probes(half_opened(), times=1)
    circuit = after(circuit, SUCCESS, now=now)
    assert (circuit.state, circuit.lost) == (HALF_OPEN, 0)


def test_each_failed_recovery_doubles_the_wait_up_to_its_limit_and_success_forgets_it() -> None:
    config = replace(CONFIG, max_recovery_timeout=200.0)
    circuit, now, waits = opened(), 0.0, []
    for _ in range(4):
        now += circuit.open_for / 1e6
        circuit, probe = admitted(circuit, now, config)
        circuit = record(circuit, config, probe, FAILURE, now, chance=1.0)
        waits.append(circuit.open_for / 1e6)
    assert waits == [120.0, 200.0, 200.0, 200.0]
    circuit = after(circuit, SUCCESS, SUCCESS, now=now + 200.0, config=config)
    assert (circuit.state, circuit.reopenings) == (CLOSED, 0)


@given(chance=st.floats(0, 1, exclude_max=True))
def test_the_first_opening_lasts_exactly_as_told_and_later_ones_vary_above_it(chance: float) -> None:
    config = replace(CONFIG, max_recovery_timeout=600.0)
    circuit, probe = admitted(opened(), RECOVERY, config)
    assert opened().open_for == micros(RECOVERY)
    reopened = record(circuit, config, probe, FAILURE, RECOVERY, chance=chance)
    assert 1.5 * RECOVERY <= reopened.open_for / 1e6 <= 2 * RECOVERY


def test_after_recovery_calls_come_back_by_and_by() -> None:
    config = replace(CONFIG, ramp_seconds=10.0)
    circuit = after(opened(), SUCCESS, SUCCESS, now=RECOVERY, config=config)

    def share(seconds: float) -> float:
        decisions = [admit(circuit, config, RECOVERY + seconds, chance / 1000)[1] for chance in range(1000)]
        return sum(isinstance(decision, Permit) for decision in decisions) / 1000

    assert [share(seconds) for seconds in (0, 5, 10)] == pytest.approx([0.1, 0.55, 1.0], abs=0.01)


@given(chance=st.floats(0, 1, exclude_max=True))
def test_who_is_refused_on_the_ramp_is_told_when_the_same_chance_would_do(chance: float) -> None:
    config = replace(CONFIG, ramp_seconds=10.0)
    circuit = after(opened(), SUCCESS, SUCCESS, now=RECOVERY, config=config)
    decision = admit(circuit, config, RECOVERY, chance)[1]
    if isinstance(decision, Rejection):
        later = admit(circuit, config, RECOVERY + decision.retry_after + 1e-5, chance)[1]
        assert isinstance(later, Permit)


def test_there_is_no_ramp_after_a_reset() -> None:
    config = replace(CONFIG, ramp_seconds=10.0)
    assert ramp_left(obey(opened(), Order.RESET, 1.0), config, micros(1.0)) == 0


# By hand


def test_forced_open_keeps_the_counts_and_recovers_like_any_other_opening() -> None:
    circuit = obey(after(Circuit(), SUCCESS, FAILURE), Order.OPEN, now=5.0)
    assert (circuit.state, circuit.total_calls, circuit.failures) == (OPEN, 2, 1)
    assert admitted(circuit, 5.0 + RECOVERY)[0].state is HALF_OPEN


def test_held_open_it_stays_until_it_is_released() -> None:
    circuit = obey(Circuit(), Order.HOLD)
    assert "held by hand" in refused(circuit, 1e6).reason
    assert obey(circuit, Order.RESET).manual is Manual.NONE
    assert admitted(obey(circuit, Order.RESET), 1.0)


def test_disabled_it_counts_and_never_opens() -> None:
    circuit = after(obey(opened(), Order.DISABLE), *[FAILURE] * 100, config=replace(RATES, failure_threshold=3))
    assert (circuit.state, circuit.failures) == (CLOSED, 100)


def test_a_reset_forgets_everything_but_the_epoch() -> None:
    circuit = opened()
    reset = obey(circuit, Order.RESET)
    assert reset == Circuit(epoch=circuit.epoch + 1, cause=Cause.RESET)


def test_an_epoch_is_never_below_the_clock_so_that_it_outlives_a_loss_of_memory() -> None:
    assert opened(now=1000.0).epoch == micros(1000.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("failure_threshold", 0),
        ("half_open_max_calls", 0),
        ("success_threshold", 0),
        ("recovery_timeout", -1.0),
        ("slow_call_threshold", -0.1),
        ("minimum_throughput", -1),
        ("max_recovery_timeout", -1.0),
        ("ramp_seconds", -1.0),
        ("failure_rate_threshold", 0.0),
        ("slow_rate_threshold", 1.1),
        ("timeout", 0.0),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(CONFIG, **{field: value})


class AnyHistory(RuleBasedStateMachine):
    """Calls begin and end in any order, time passes, people meddle; the laws hold throughout."""

    permits: Bundle[Permit] = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit()
        self.now = 0.0
        self.out: list[tuple[Permit, float]] = []

    def become(self, circuit: Circuit) -> None:
        before, self.circuit = self.circuit, circuit
        assert circuit.epoch >= before.epoch, "epochs never fall"
        if circuit.state is not before.state:
            assert circuit.epoch > before.epoch, "a change of state raises the epoch"

    def follow_the_table(self, circuit: Circuit) -> None:
        before = self.circuit
        if before.state is not circuit.state:
            # A probe may be asked for and another one found lost in the same step.
            assert (before.state, circuit.cause, circuit.state) in TRANSITIONS
        self.become(circuit)

    @rule(target=permits)
    def begin(self) -> Permit:
        circuit, decision = admit(self.circuit, CONFIG, self.now)
        self.follow_the_table(circuit)
        if isinstance(decision, Rejection):
            assert 0 < decision.retry_after <= RECOVERY
            return Permit(-1)  # in the bundle, but of an epoch that never was: late news like any other
        assert decision.epoch == circuit.epoch
        self.out.append((decision, self.now + LEASE))
        return decision

    @rule(permit=consumes(permits), outcome=st.sampled_from(Outcome))
    def end(self, permit: Permit, outcome: Outcome) -> None:
        before = self.circuit
        told = record(before, CONFIG, permit, outcome, self.now)
        if permit.epoch != before.epoch and told.cause is before.cause:
            counted = {
                name: getattr(told, name) for name in ("total_calls", "failures", "successes", "leases", "lost")
            }
            assert before._replace(**counted) == told, "late news is counted and changes nothing else"
        self.follow_the_table(told)
        self.out = [(held, until) for held, until in self.out if held is not permit]

    @rule(seconds=st.integers(0, 90))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(order=st.sampled_from([Order.OPEN, Order.RESET]))
    def people_meddle(self, order: Order) -> None:
        self.become(obey(self.circuit, order, self.now))
        assert self.circuit.state is (OPEN if order is Order.OPEN else CLOSED)

    @invariant()
    def places_taken_are_the_probes_in_flight(self) -> None:
        probes = {
            permit.token for permit, until in self.out if permit.epoch == self.circuit.epoch and until > self.now
        }
        live = {lease.token for lease in self.circuit.leases if lease.expires_at > micros(self.now)}
        assert live == (probes if self.circuit.state is HALF_OPEN else set())
        assert self.circuit.in_flight <= CONFIG.half_open_max_calls

    @invariant()
    def a_row_is_of_one_kind(self) -> None:
        assert not (self.circuit.consecutive_failures and self.circuit.consecutive_successes)

    @invariant()
    def the_next_call_at_the_promised_time_is_admitted(self) -> None:
        if self.circuit.state is OPEN:
            promised = (self.circuit.changed_at + self.circuit.open_for) / 1e6
            assert isinstance(admit(self.circuit, CONFIG, promised)[1], Permit)


TestAnyHistory = AnyHistory.TestCase


def test_a_lease_is_what_it_says() -> None:
    circuit, probe = admitted(opened(), RECOVERY)
    assert circuit.leases == (Lease(probe.token, micros(RECOVERY + LEASE)),)
