"""How much a worker takes from the queue of a service, by the service's circuit: (circuit, now) -> `Intake`.

    CLOSED                                      FREE
    OPEN, its time not over, or held by hand    NONE
    OPEN, its time over                         ONE: an open circuit is probed only if somebody calls
    HALF_OPEN, with a place for a probe         ONE
    HALF_OPEN, full                             NONE; ONE again after `FULL_PATIENCE`

A job that is taken in and meets no place goes back unharmed, so an error here costs a detour and never a job.
"""

import math
from enum import StrEnum

from bridge_tasks.resilience.policy.circuit import Circuit, CircuitBreakerConfig, CircuitState, Manual
from bridge_tasks.resilience.policy.window import SECOND

FULL_PATIENCE = 5.0
"""Seconds that a full half-open circuit is believed: only a caller finds out that a probe's worker was killed."""


class Intake(StrEnum):
    """FREE: as much as there are slots. ONE: the next message, then none. NONE: they wait in the queue."""

    FREE = "free"
    ONE = "one"
    NONE = "none"


def intake(circuit: Circuit, config: CircuitBreakerConfig, now: int, waited: float) -> Intake:
    """Decide for one queue of one worker.

    Args:
        circuit: the service's, as last heard of.
        config: its rules' numbers.
        now: microseconds of the clock in which the circuit is told.
        waited: seconds since this worker last took something from a queue that is not FREE.
    """
    if circuit.state is CircuitState.CLOSED:
        return Intake.FREE
    if circuit.state is CircuitState.OPEN:
        return Intake.NONE if seconds_left(circuit, now) > 0 else Intake.ONE
    full = circuit.in_flight >= config.half_open_max_calls
    return Intake.NONE if full and waited < FULL_PATIENCE else Intake.ONE


def seconds_left(circuit: Circuit, now: int) -> float:
    """Return the seconds until a circuit may be called again; infinity where people hold it open."""
    if circuit.state is not CircuitState.OPEN:
        return 0.0
    if circuit.manual is Manual.HELD:
        return math.inf
    return max(circuit.changed_at + circuit.open_for - now, 0) / SECOND
