"""The circuit breaker's rules, told as stories, and then let loose on arbitrary histories."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from bridge_tasks.resilience.policy.breaker import (
    TRANSITIONS,
    Circuit,
    CircuitBreakerConfig,
    CircuitState,
    Outcome,
    Permit,
    Rejection,
    admit,
    force_open,
    record,
    reset,
)

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
SUCCESS, FAILURE, NEUTRAL = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEUTRAL

RECOVERY = 60.0
CONFIG = CircuitBreakerConfig(
    failure_threshold=3,
    recovery_timeout=RECOVERY,
    half_open_max_calls=2,
    success_threshold=2,
    minimum_throughput=1,
)


def admitted(circuit: Circuit, now: float = 0.0, config: CircuitBreakerConfig = CONFIG) -> tuple[Circuit, Permit]:
    circuit, decision = admit(circuit, config, now)
    assert isinstance(decision, Permit)
    return circuit, decision


def refused(circuit: Circuit, now: float) -> Rejection:
    after, decision = admit(circuit, CONFIG, now)
    assert isinstance(decision, Rejection)
    assert after == circuit, "a refusal changes nothing"
    return decision


def after(
    circuit: Circuit, *outcomes: Outcome, now: float = 0.0, config: CircuitBreakerConfig = CONFIG
) -> Circuit:
    """Make one call after another, each with its outcome."""
    for outcome in outcomes:
        circuit, permit = admitted(circuit, now, config)
        circuit = record(circuit, config, permit, outcome, now)
    return circuit


def opened(now: float = 0.0) -> Circuit:
    return after(Circuit(), FAILURE, FAILURE, FAILURE, now=now)


def half_opened() -> Circuit:
    """Open, and then let the recovery time pass; the one probe said nothing."""
    return after(opened(), NEUTRAL, now=RECOVERY)


STORIES: dict[tuple[CircuitState, CircuitState], tuple[Callable[[], Circuit], Callable[[Circuit], Circuit]]] = {
    (CLOSED, OPEN): (lambda: after(Circuit(), FAILURE, FAILURE), lambda circuit: after(circuit, FAILURE)),
    (OPEN, HALF_OPEN): (opened, lambda circuit: admitted(circuit, RECOVERY)[0]),
    (HALF_OPEN, OPEN): (half_opened, lambda circuit: after(circuit, FAILURE, now=RECOVERY)),
    (HALF_OPEN, CLOSED): (
        lambda: after(half_opened(), SUCCESS, now=RECOVERY),
        lambda circuit: after(circuit, SUCCESS, now=RECOVERY),
    ),
}


@pytest.mark.parametrize(("old", "cause", "new"), TRANSITIONS, ids=lambda part: str(part).replace(" ", "-"))
def test_each_transition_of_the_table_happens_and_raises_the_epoch_by_one(
    old: CircuitState, cause: str, new: CircuitState
) -> None:
    assert cause
    begin, then = STORIES[old, new]
    before = begin()
    changed = then(before)
    assert (before.state, changed.state) == (old, new)
    assert changed.epoch == before.epoch + 1


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
    assert record(circuit, CONFIG, probe, NEUTRAL, RECOVERY) == replace(circuit, in_flight=0)


def test_a_failed_probe_reopens_whatever_the_throughput_and_starts_the_recovery_anew() -> None:
    config = replace(CONFIG, minimum_throughput=1000)
    circuit = after(force_open(Circuit(), now=0.0), FAILURE, now=RECOVERY, config=config)
    assert (circuit.state, circuit.opened_at) == (OPEN, RECOVERY)


def test_closing_forgets_failures_and_keeps_totals() -> None:
    circuit = after(opened(), SUCCESS, SUCCESS, now=RECOVERY)
    assert circuit == Circuit(state=CLOSED, epoch=3, successes=2, total_calls=5)


@pytest.mark.parametrize("late", [SUCCESS, FAILURE])
def test_late_news_from_before_the_opening_is_counted_and_changes_nothing_else(late: Outcome) -> None:
    # Given a call that began while the circuit was closed
    circuit, slow = admitted(Circuit())
    circuit = after(circuit, FAILURE, FAILURE, FAILURE, now=10.0)
    # When its outcome comes after the circuit opened
    told = record(circuit, CONFIG, slow, late, now=50.0)
    # Then neither the state nor the recovery's clock has moved
    assert told.total_calls == circuit.total_calls + 1
    assert replace(told, total_calls=3, failures=3, successes=0) == circuit


def test_late_successes_do_not_help_to_close() -> None:
    circuit, slow = admitted(Circuit())
    circuit, slower = admitted(circuit)
    circuit = after(circuit, FAILURE, FAILURE, FAILURE)
    circuit = after(circuit, NEUTRAL, now=RECOVERY)
    for permit in (slow, slower):
        circuit = record(circuit, CONFIG, permit, SUCCESS, RECOVERY)
    assert (circuit.state, circuit.consecutive_successes) == (HALF_OPEN, 0)


def test_forced_open_keeps_the_counts_and_recovers_like_any_other_opening() -> None:
    circuit = force_open(after(Circuit(), SUCCESS, FAILURE), now=5.0)
    assert (circuit.state, circuit.total_calls, circuit.failures) == (OPEN, 2, 1)
    assert admitted(circuit, 5.0 + RECOVERY)[0].state is HALF_OPEN


def test_a_reset_forgets_everything_but_the_epoch() -> None:
    assert reset(opened()) == Circuit(epoch=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("failure_threshold", 0),
        ("half_open_max_calls", 0),
        ("success_threshold", 0),
        ("recovery_timeout", -1.0),
        ("slow_call_threshold", -0.1),
        ("minimum_throughput", -1),
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
        self.out: list[Permit] = []

    def become(self, circuit: Circuit) -> None:
        before, self.circuit = self.circuit, circuit
        assert circuit.epoch >= before.epoch, "epochs never fall"
        if circuit.state is not before.state:
            assert circuit.epoch > before.epoch, "a change of state raises the epoch"

    def follow_the_table(self, circuit: Circuit) -> None:
        moves = {(old, new) for old, _, new in TRANSITIONS}
        move = (self.circuit.state, circuit.state)
        assert move[0] is move[1] or move in moves
        self.become(circuit)

    @rule(target=permits)
    def begin(self) -> Permit:
        circuit, decision = admit(self.circuit, CONFIG, self.now)
        if isinstance(decision, Rejection):
            assert circuit == self.circuit
            assert 0 < decision.retry_after <= max(CONFIG.recovery_timeout, CONFIG.timeout)
            return Permit(-1)  # in the bundle, but of an epoch that never was: late news like any other
        assert decision.epoch == circuit.epoch
        self.follow_the_table(circuit)
        self.out.append(decision)
        return decision

    @rule(permit=consumes(permits), outcome=st.sampled_from(Outcome))
    def end(self, permit: Permit, outcome: Outcome) -> None:
        before = self.circuit
        told = record(before, CONFIG, permit, outcome, self.now)
        if outcome is NEUTRAL:
            assert replace(told, in_flight=0) == replace(before, in_flight=0)
        if permit.epoch != before.epoch:
            counted = {name: getattr(told, name) for name in ("total_calls", "failures", "successes")}
            assert replace(before, **counted) == told, "late news is counted and changes nothing else"
        self.follow_the_table(told)
        if permit in self.out:
            self.out.remove(permit)

    @rule(seconds=st.integers(0, 90))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def people_open_it(self) -> None:
        self.become(force_open(self.circuit, self.now))
        assert self.circuit.state is OPEN

    @rule()
    def people_reset_it(self) -> None:
        self.become(reset(self.circuit))
        assert self.circuit.state is CLOSED

    @invariant()
    def places_taken_are_the_probes_in_flight(self) -> None:
        probes = sum(permit.epoch == self.circuit.epoch for permit in self.out)
        assert self.circuit.in_flight == (probes if self.circuit.state is HALF_OPEN else 0)
        assert self.circuit.in_flight <= CONFIG.half_open_max_calls

    @invariant()
    def a_row_is_of_one_kind(self) -> None:
        assert not (self.circuit.consecutive_failures and self.circuit.consecutive_successes)

    @invariant()
    def the_next_call_at_the_promised_time_is_admitted(self) -> None:
        if self.circuit.state is OPEN:
            assert isinstance(admit(self.circuit, CONFIG, self.circuit.opened_at + RECOVERY)[1], Permit)


TestAnyHistory = AnyHistory.TestCase
