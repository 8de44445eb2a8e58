"""A circuit breaker's words: states, causes, numbers, and all that it remembers. The rules are in `breaker`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from bridge_tasks.resilience.policy.window import SECOND, Window


class CircuitState(StrEnum):
    """CLOSED lets calls through, OPEN refuses them, HALF_OPEN lets a few through to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Manual(StrEnum):
    """What people ordered, until they release it by `reset`: HELD stays open, DISABLED never opens."""

    NONE = "none"
    HELD = "held"
    DISABLED = "disabled"


class Cause(StrEnum):
    """Why a circuit is in its state."""

    NEW = "new"
    RUN = "failure_threshold failures in a row"
    RATE = "failure_rate_threshold reached"
    SLOW = "slow_rate_threshold reached"
    RECOVERY = "recovery_timeout passed"
    PROBE_FAILED = "a probe failed"
    PROBES_LOST = "probes were lost"
    PROBES_GOOD = "success_threshold probes succeeded"
    OPENED = "opened by hand"
    DISABLED = "disabled by hand"
    RESET = "reset by hand"


class Outcome(StrEnum):
    """What a call says of the service's health. NEUTRAL: nothing (cancelled, or a fault of our own)."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


class Order(StrEnum):
    """What people can order: OPEN recovers as after any opening, HOLD stays until RESET."""

    OPEN = "open"
    HOLD = "hold"
    DISABLE = "disable"
    RESET = "reset"


@dataclass(frozen=True)
class CircuitBreakerConfig:
    """When to open, how long to stay open, how to come back. Defaults are client-guide.md's; the rest is off.

    Attributes:
        failure_threshold: failures in a row that open the circuit.
        recovery_timeout: seconds until an open circuit tries again.
        half_open_max_calls: probes in flight at once while half-open.
        success_threshold: probes that must succeed, in a row, to close it.
        timeout: seconds that `CircuitBreaker.call` gives an operation.
        slow_call_threshold: seconds from which a successful call counts as slow.
        minimum_throughput: calls since the last reset below which failures in a row never open it.
        failure_rate_threshold: share of failures that opens it, of at least 20 calls in the last 10 seconds
            (or 0.9 of at least 10 in the last 2); 1 switches both off.
        slow_rate_threshold: share of slow calls that opens it, of at least 20 in 10 seconds; 1 switches it off.
        max_recovery_timeout: seconds that the doubling of `recovery_timeout` after each failed recovery may
            reach; at `recovery_timeout` or below there is no doubling.
        ramp_seconds: seconds over which calls are let through again after recovery, from 10 % to all.
    """

    failure_threshold: int = 5
    recovery_timeout: float = 60.0
    half_open_max_calls: int = 3
    success_threshold: int = 2
    timeout: float = 30.0
    slow_call_threshold: float = 5.0
    minimum_throughput: int = 5
    failure_rate_threshold: float = 1.0
    slow_rate_threshold: float = 1.0
    max_recovery_timeout: float = 0.0
    ramp_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("failure_threshold", "half_open_max_calls", "success_threshold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in (
            "recovery_timeout",
            "slow_call_threshold",
            "minimum_throughput",
            "max_recovery_timeout",
            "ramp_seconds",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("failure_rate_threshold", "slow_rate_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1")
        if self.timeout <= 0:
            raise ValueError("timeout must be above 0 seconds")

    @property
    def watches_rates(self) -> bool:
        """Whether the window is needed at all."""
        return self.failure_rate_threshold < 1 or self.slow_rate_threshold < 1


@dataclass(frozen=True, slots=True)
class Voices:
    """When something was last heard of one reporter, and of any other: enough to know whether one is alone."""

    latest: str = ""
    latest_at: int = 0
    other_at: int = 0

    def hear(self, reporter: str, now: int) -> "Voices":
        """Take in a reporter's voice."""
        other_at = self.other_at if reporter == self.latest else self.latest_at
        return Voices(reporter, now, other_at)

    def others(self, reporter: str, now: int) -> bool:
        """Say whether anybody but `reporter` was heard within the window."""
        heard_at = self.other_at if reporter == self.latest else self.latest_at
        return heard_at > 0 and heard_at > now - Window.SPAN * SECOND


@dataclass(frozen=True, slots=True)
class Lease:
    """A probe in flight: who has it, and until when it counts."""

    token: str
    expires_at: int


class Circuit(NamedTuple):
    """All that the rules remember, in a tuple because most calls change it. Times are microseconds of one clock.

    Attributes:
        changed_at: when it entered its state; `open_for` is how long it stays OPEN from then on.
        reopenings: failed recoveries in a row.
        ramps: whether it closed by recovery, so that calls come back by and by.
        lost: probes in a row whose lease ran out.
        run_began: the first of the failures in a row.
        heard: who reports at all; `complaining`: who reports failures.
        suspect: the reporter whose failures alone would open the circuit, were it not for the others.
    """

    state: CircuitState = CircuitState.CLOSED
    manual: Manual = Manual.NONE
    epoch: int = 0
    cause: Cause = Cause.NEW
    changed_at: int = 0
    open_for: int = 0
    reopenings: int = 0
    ramps: bool = False
    leases: tuple[Lease, ...] = ()
    lost: int = 0
    failures: int = 0
    successes: int = 0
    total_calls: int = 0
    consecutive_failures: int = 0
    consecutive_successes: int = 0
    run_began: int = 0
    window: Window = Window()
    heard: Voices = Voices()
    complaining: Voices = Voices()
    suspect: str = ""

    @property
    def in_flight(self) -> int:
        """Probes in flight."""
        return len(self.leases)

    @property
    def flows(self) -> bool:
        """Whether every call is let through, without another thought: `admit` needs not be asked."""
        return self.state is CircuitState.CLOSED and not self.ramps


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call; hand it back with the call's outcome. A probe's has a token."""

    epoch: int
    token: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """No call is made. `retry_after` is in seconds: when asking again makes sense."""

    reason: str
    retry_after: float


@dataclass(frozen=True, slots=True)
class News:
    """What a reporter has to tell: successes first, failures after them.

    Attributes:
        epoch: of the permits under which the calls were made.
        slow: how many of the successes were slow.
        succeeded_at: when the last of them succeeded.
        token: the lease that comes back with this.
        reporter: the process; "" where there is only one.
    """

    epoch: int
    successes: int = 0
    failures: int = 0
    slow: int = 0
    succeeded_at: int = 0
    token: str = ""
    reporter: str = ""


def micros(seconds: float) -> int:
    """Return seconds as whole microseconds."""
    return round(seconds * SECOND)
