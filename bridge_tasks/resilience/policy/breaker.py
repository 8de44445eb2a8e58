"""The circuit breaker's rules: (circuit, event, now) -> (circuit, decision).

    CLOSED ──(failures in a row)──> OPEN ──(recovery_timeout passed)──> HALF_OPEN
       ^                              ^                                     │ │
       │                              └──────────(a probe failed)───────────┘ │
       └────────────────────────(enough probes succeeded)─────────────────────┘

Rule 1: every change of state raises the epoch; news from an older epoch is counted and changes nothing else.
Rule 2: only HALF_OPEN limits calls in flight. Rule 3: a neutral outcome frees its place and says nothing.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class CircuitState(StrEnum):
    """CLOSED lets calls through, OPEN refuses them, HALF_OPEN lets a few through to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Outcome(StrEnum):
    """What a call says of the service's health. NEUTRAL: nothing (cancelled, or a fault of our own)."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


TRANSITIONS = (
    (CircuitState.CLOSED, "failure_threshold failures in a row", CircuitState.OPEN),
    (CircuitState.OPEN, "recovery_timeout passed", CircuitState.HALF_OPEN),
    (CircuitState.HALF_OPEN, "a probe failed", CircuitState.OPEN),
    (CircuitState.HALF_OPEN, "success_threshold probes succeeded", CircuitState.CLOSED),
)
"""Every transition there is, besides the manual ones (reset, force_open)."""


@dataclass(frozen=True)
class CircuitBreakerConfig:
    """When to open, how long to stay open, how to come back. Defaults are client-guide.md's.

    Attributes:
        failure_threshold: failures in a row that open the circuit.
        recovery_timeout: seconds until an open circuit tries again.
        half_open_max_calls: probes in flight at once while half-open.
        success_threshold: probes that must succeed, in a row, to close it.
        timeout: seconds that `CircuitBreaker.call` gives an operation.
        slow_call_threshold: seconds from which a successful call counts as slow (counted, never a failure).
        minimum_throughput: calls since the last reset below which it never opens.
    """

    failure_threshold: int = 5
    recovery_timeout: float = 60.0
    half_open_max_calls: int = 3
    success_threshold: int = 2
    timeout: float = 30.0
    slow_call_threshold: float = 5.0
    minimum_throughput: int = 5

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "half_open_max_calls", "success_threshold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("recovery_timeout", "slow_call_threshold", "minimum_throughput"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.timeout <= 0:
            raise ValueError("timeout must be above 0 seconds")


@dataclass(frozen=True, slots=True)
class Circuit:
    """All that the rules remember. Times are seconds of one monotonic clock."""

    state: CircuitState = CircuitState.CLOSED
    epoch: int = 0
    opened_at: float = 0.0
    in_flight: int = 0
    failures: int = 0
    successes: int = 0
    total_calls: int = 0
    consecutive_failures: int = 0
    consecutive_successes: int = 0


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call; hand it back with the call's outcome."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """No call is made. `retry_after` is in seconds: when asking again makes sense."""

    reason: str
    retry_after: float


def admit(circuit: Circuit, config: CircuitBreakerConfig, now: float) -> tuple[Circuit, Permit | Rejection]:
    """Decide whether one call may be made now."""
    if circuit.state is CircuitState.OPEN:
        left = circuit.opened_at + config.recovery_timeout - now
        if left > 0:
            return circuit, Rejection("is OPEN, blocking requests", left)
        circuit = _enter(circuit, CircuitState.HALF_OPEN)
    if circuit.state is CircuitState.HALF_OPEN:
        if circuit.in_flight >= config.half_open_max_calls:
            return circuit, Rejection("is HALF_OPEN, max concurrent calls reached", config.timeout)
        circuit = replace(circuit, in_flight=circuit.in_flight + 1)
    return circuit, Permit(circuit.epoch)


def record(
    circuit: Circuit, config: CircuitBreakerConfig, permit: Permit, outcome: Outcome, now: float
) -> Circuit:
    """Take in the outcome of a call that was admitted."""
    current = permit.epoch == circuit.epoch
    if current and circuit.state is CircuitState.HALF_OPEN:
        circuit = replace(circuit, in_flight=circuit.in_flight - 1)
    if outcome is Outcome.NEUTRAL:
        return circuit
    circuit = _count(circuit, outcome, in_a_row=current)
    return _judge(circuit, config, now) if current else circuit


def force_open(circuit: Circuit, now: float) -> Circuit:
    """Open by hand; counts stay, and recovery follows as after any opening."""
    return replace(_enter(circuit, CircuitState.OPEN), opened_at=now)


def reset(circuit: Circuit) -> Circuit:
    """Close by hand and forget everything, but for the epoch: calls still in flight are late news."""
    return Circuit(epoch=circuit.epoch + 1)


def _count(circuit: Circuit, outcome: Outcome, *, in_a_row: bool) -> Circuit:
    failed = outcome is Outcome.FAILURE
    counted = replace(
        circuit,
        total_calls=circuit.total_calls + 1,
        failures=circuit.failures + failed,
        successes=circuit.successes + (not failed),
    )
    if not in_a_row:
        return counted
    return replace(
        counted,
        consecutive_failures=circuit.consecutive_failures + 1 if failed else 0,
        consecutive_successes=0 if failed else circuit.consecutive_successes + 1,
    )


def _judge(circuit: Circuit, config: CircuitBreakerConfig, now: float) -> Circuit:
    match circuit.state:
        case CircuitState.CLOSED:
            tripped = (
                circuit.consecutive_failures >= config.failure_threshold
                and circuit.total_calls >= config.minimum_throughput
            )
            return replace(_enter(circuit, CircuitState.OPEN), opened_at=now) if tripped else circuit
        case CircuitState.HALF_OPEN if circuit.consecutive_failures:
            return replace(_enter(circuit, CircuitState.OPEN), opened_at=now)
        case CircuitState.HALF_OPEN if circuit.consecutive_successes >= config.success_threshold:
            closed = _enter(circuit, CircuitState.CLOSED)
            return replace(closed, failures=0, consecutive_failures=0, consecutive_successes=0)
    return circuit


def _enter(circuit: Circuit, state: CircuitState) -> Circuit:
    entered = replace(circuit, state=state, epoch=circuit.epoch + 1, in_flight=0)
    if state is CircuitState.HALF_OPEN:
        entered = replace(entered, consecutive_failures=0, consecutive_successes=0)
    return entered
