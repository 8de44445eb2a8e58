"""The circuit breaker that people use: client-guide.md's `CircuitBreaker`, over any `CircuitStore`.

`call` and `protect` are the guide's; `admit` and `settle` are what the transports use. No rule is written
here: those are `policy.breaker`'s. Only `call` needs an event loop, for its timeout.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, TypeVar

from bridge_tasks import events
from bridge_tasks.errors import CircuitBreakerError
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

T = TypeVar("T")

RESPONSE_TIMES_KEPT = 100
"""Successful calls whose duration is remembered, as in the known client."""


@dataclass
class CircuitBreakerMetrics:
    """What a breaker has seen since its last reset. Durations are seconds, times are epoch seconds."""

    name: str
    circuit: Circuit = field(default_factory=Circuit)
    slow_calls: int = 0
    last_failure_time: float | None = None
    state_change_time: float = field(default_factory=time.time)
    _durations: deque[float] = field(default_factory=lambda: deque(maxlen=RESPONSE_TIMES_KEPT))

    @property
    def state(self) -> CircuitState:
        """The state as of the last call; an OPEN circuit turns HALF_OPEN when the next call comes."""
        return self.circuit.state

    @property
    def failure_count(self) -> int:
        """Failures; back to 0 when the circuit closes."""
        return self.circuit.failures

    @property
    def success_count(self) -> int:
        """Successes."""
        return self.circuit.successes

    @property
    def total_calls(self) -> int:
        """Calls that succeeded or failed; refused and cancelled ones do not count."""
        return self.circuit.total_calls

    @property
    def consecutive_failures(self) -> int:
        """Failures since the last success."""
        return self.circuit.consecutive_failures

    @property
    def consecutive_successes(self) -> int:
        """Successes since the last failure."""
        return self.circuit.consecutive_successes

    @property
    def half_open_calls(self) -> int:
        """Probes in flight."""
        return self.circuit.in_flight

    @property
    def error_rate(self) -> float:
        """Failures per call, 0..1."""
        return self.failure_count / self.total_calls if self.total_calls else 0.0

    @property
    def response_times(self) -> list[float]:
        """Durations of the last 100 successful calls."""
        return list(self._durations)

    @property
    def avg_response_time(self) -> float:
        """Mean of `response_times`, 0 when there are none."""
        return fmean(self._durations) if self._durations else 0.0

    def observe(self, outcome: Outcome, seconds: float, slow_after: float) -> None:
        """Take in one finished call."""
        if outcome is Outcome.FAILURE:
            self.last_failure_time = time.time()
        elif outcome is Outcome.SUCCESS:
            self._durations.append(seconds)
            self.slow_calls += seconds >= slow_after

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as plain JSON."""
        return {
            "name": self.name,
            "state": self.state.value,
            "failure_count": self.failure_count,
            "success_count": self.success_count,
            "total_calls": self.total_calls,
            "consecutive_failures": self.consecutive_failures,
            "consecutive_successes": self.consecutive_successes,
            "error_rate": self.error_rate,
            "avg_response_time": self.avg_response_time,
            "slow_calls": self.slow_calls,
            "last_failure_time": self.last_failure_time,
        }


class CircuitBreaker:
    """Stops calling what keeps failing, and finds out gently when it is well again.

    Args:
        name: appears in messages, events and metrics.
        config: the numbers; client-guide.md's by default.
        store: where the state is kept; this process by default.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        config: CircuitBreakerConfig | None = None,
        *,
        store: CircuitStore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.config = config or CircuitBreakerConfig()
        self.metrics = CircuitBreakerMetrics(name)
        self._clock = clock
        self._store = store or LocalCircuitStore(self.config, clock)
        self._lock = threading.Lock()

    @property
    def state(self) -> CircuitState:
        """The state as of the last call."""
        return self.metrics.state

    def get_metrics(self) -> CircuitBreakerMetrics:
        """Return the live metrics object; `reset` replaces it."""
        return self.metrics

    async def call(
        self,
        func: Callable[..., Awaitable[T]],
        *args: Any,
        timeout: float | None = None,  # noqa: ASYNC109 - the guide's signature
        **kwargs: Any,
    ) -> T:
        """Await `func(*args, **kwargs)` under protection.

        Args:
            func: anything that returns an awaitable.
            args: handed to `func`.
            timeout: seconds; `config.timeout` where None or 0.
            kwargs: handed to `func`.

        Raises:
            CircuitBreakerError: the circuit refused; `func` was not called.
            TimeoutError: it took longer (counts as a failure).
            Exception: whatever `func` raised, unchanged (counts as a failure).
        """
        async with self.protect(), asyncio.timeout(timeout or self.config.timeout):
            return await func(*args, **kwargs)

    @asynccontextmanager
    async def protect(self) -> AsyncIterator[None]:
        """Protect a block, without a timeout: an exception is a failure, a cancellation is neither.

        Raises:
            CircuitBreakerError: before the block begins.
        """
        permit = await self.admit()
        began = self._clock()
        outcome = Outcome.NEUTRAL
        try:
            yield
            outcome = Outcome.SUCCESS
        except Exception:
            outcome = Outcome.FAILURE
            raise
        finally:
            await self.settle(permit, outcome, self._clock() - began)

    async def admit(self) -> Permit:
        """Ask leave for one call; the permit must come back through `settle`, whatever happens.

        Raises:
            CircuitBreakerError: the circuit is open, or half-open with all its probes out.
        """
        moved, decision = await self._store.admit()
        self._follow(moved, "recovery_timeout passed")
        if isinstance(decision, Rejection):
            raise CircuitBreakerError(
                f"Circuit breaker '{self.name}' {decision.reason}", None, None, round(decision.retry_after, 3)
            )
        return decision

    async def settle(self, permit: Permit, outcome: Outcome, seconds: float) -> None:
        """Hand a permit back: what came of the call, and how long it took."""
        moved = await self._store.record(permit, outcome)
        with self._lock:
            self.metrics.observe(outcome, seconds, self.config.slow_call_threshold)
        self._follow(moved, f"call was a {outcome.value}")

    async def reset(self) -> None:
        """Close the circuit and start counting anew."""
        moved = await self._store.reset()
        with self._lock:
            self.metrics = CircuitBreakerMetrics(self.name, moved.before)
        self._follow(moved, "reset by hand")

    async def force_open(self) -> None:
        """Open the circuit; it tries again after `recovery_timeout`, like after any opening."""
        self._follow(await self._store.force_open(), "opened by hand")
        self.metrics.last_failure_time = time.time()

    def _follow(self, moved: Moved, cause: str) -> None:
        changed = moved.before.state is not moved.after.state
        with self._lock:
            if _age(moved.after) >= _age(self.metrics.circuit):
                self.metrics.circuit = moved.after
            if changed:
                self.metrics.state_change_time = time.time()
        if changed:
            events.emit(events.CircuitChanged(self.name, moved.before.state, moved.after.state, cause))


def _age(circuit: Circuit) -> tuple[int, int]:
    """Order snapshots: two threads may bring theirs in either order."""
    return circuit.epoch, circuit.total_calls
