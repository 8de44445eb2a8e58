"""What a worker takes in, by the state of a circuit: the table, and what holds for all of it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.resilience.policy import breaker
from bridge_tasks.resilience.policy.breaker import (
    Circuit,
    CircuitBreakerConfig,
    CircuitState,
    Lease,
    Manual,
    Order,
    Permit,
    micros,
)
from bridge_tasks.resilience.policy.pausing import FULL_PATIENCE, Intake, intake, seconds_left

CONFIG = CircuitBreakerConfig(recovery_timeout=60, half_open_max_calls=2, ramp_seconds=5)
NOW = micros(1000)

CLOSED = Circuit()
OPEN = Circuit(CircuitState.OPEN, changed_at=NOW - micros(10), open_for=micros(60))
OVERDUE = OPEN._replace(open_for=micros(10))
HALF_OPEN = Circuit(CircuitState.HALF_OPEN)
PROBED = HALF_OPEN._replace(leases=(Lease("a", NOW),))
FULL = HALF_OPEN._replace(leases=(Lease("a", NOW), Lease("b", NOW)))


@pytest.mark.parametrize(
    ("circuit", "waited", "wanted"),
    [
        pytest.param(CLOSED, 0, Intake.FREE, id="closed"),
        pytest.param(CLOSED._replace(ramps=True), 0, Intake.FREE, id="closed a moment ago"),
        pytest.param(CLOSED._replace(manual=Manual.DISABLED), 0, Intake.FREE, id="disabled by hand"),
        pytest.param(OPEN, 0, Intake.NONE, id="open"),
        pytest.param(OPEN, math.inf, Intake.NONE, id="open, however long one waited"),
        pytest.param(OVERDUE, 0, Intake.ONE, id="open, and its time is over"),
        pytest.param(OVERDUE._replace(manual=Manual.HELD), math.inf, Intake.NONE, id="held open by hand"),
        pytest.param(HALF_OPEN, 0, Intake.ONE, id="half-open"),
        pytest.param(PROBED, 0, Intake.ONE, id="half-open, with a place left"),
        pytest.param(FULL, 0, Intake.NONE, id="half-open and full"),
        pytest.param(FULL, FULL_PATIENCE, Intake.ONE, id="half-open and full for suspiciously long"),
    ],
)
def test_the_table(circuit: Circuit, waited: float, wanted: Intake) -> None:
    assert intake(circuit, CONFIG, NOW, waited) is wanted


circuits = st.builds(
    lambda state, changed_at, open_for, probes: Circuit(
        state,
        changed_at=changed_at,
        open_for=open_for,
        leases=tuple(Lease(str(one), NOW + 1) for one in range(probes)),
    ),
    st.sampled_from(CircuitState),
    st.integers(0, micros(2000)),
    st.integers(0, micros(600)),
    st.integers(0, 4),
)


@given(circuits, st.floats(0, FULL_PATIENCE, exclude_max=True))
def test_what_is_taken_in_to_probe_finds_a_place_and_what_finds_a_place_is_taken_in(
    circuit: Circuit, waited: float
) -> None:
    _, decision = breaker.admit(circuit, CONFIG, NOW, token="t", lease=1)

    assert (intake(circuit, CONFIG, NOW, waited) is not Intake.NONE) == isinstance(decision, Permit)


@given(circuits, st.integers(0, micros(10_000)))
def test_no_circuit_that_people_do_not_hold_keeps_a_queue_for_ever(circuit: Circuit, now: int) -> None:
    later = max(now, circuit.changed_at + circuit.open_for)

    assert intake(circuit, CONFIG, later, FULL_PATIENCE) is not Intake.NONE


@given(circuits, st.sampled_from(Order))
def test_orders_hold_from_the_moment_they_are_given(circuit: Circuit, order: Order) -> None:
    wanted = Intake.NONE if order in (Order.OPEN, Order.HOLD) else Intake.FREE

    assert intake(breaker.obey(circuit, CONFIG, order, NOW), CONFIG, NOW, math.inf) is wanted


def test_the_time_left_is_what_is_left_of_being_open() -> None:
    assert seconds_left(OPEN, NOW) == 50
    assert seconds_left(OPEN, NOW + micros(3600)) == 0
    assert seconds_left(OPEN._replace(manual=Manual.HELD), NOW) == math.inf
    assert seconds_left(HALF_OPEN, NOW) == seconds_left(CLOSED, NOW) == 0
