"""The circuit breaker that people use: client-guide.md's `CircuitBreaker`, over any `CircuitStore`.

`call` and `protect` are the guide's; `admit` and `settle` are what the transports use. No rule is written
here: those are `policy.breaker`'s. Only `call` needs an event loop, for its timeout.
"""

import asyncio
import math
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
    Order,
    Outcome,
    Permit,
    Rejection,
)
from bridge_tasks.resilience.state.local import LocalCircuitStore
from bridge_tasks.resilience.state.port import Change, CircuitStore

T = TypeVar("T")

RESPONSE_TIMES_KEPT = 100
"""Successful calls whose duration is remembered, as in the known client."""

LEASE_MARGIN = 1.0
"""Seconds that a probe's lease outlasts the time its call has: who is late by less is not yet lost."""


@dataclass
class CircuitBreakerMetrics:
    """What a breaker has seen since its last reset. Durations are seconds, times are epoch seconds.

    State and counts are the circuit's: with a shared store, those of all processes, as far as this one has heard.
    Durations, slow calls and the time of the last failure are this process's own.
    """

    name: str
    view: Callable[[], Circuit] = field(default=Circuit, repr=False)
    slow_calls: int = 0
    last_failure_time: float | None = None
    state_change_time: float = field(default_factory=time.time)
    _durations: deque[float] = field(default_factory=lambda: deque(maxlen=RESPONSE_TIMES_KEPT))

    @property
    def state(self) -> CircuitState:
        """The state as of the last call; an OPEN circuit turns HALF_OPEN when the next call comes."""
        return self.view().state

    @property
    def failure_count(self) -> int:
        """Failures; back to 0 when the circuit closes."""
        return self.view().failures

    @property
    def success_count(self) -> int:
        """Successes."""
        return self.view().successes

    @property
    def total_calls(self) -> int:
        """Calls that succeeded or failed; refused and cancelled ones do not count."""
        return self.view().total_calls

    @property
    def consecutive_failures(self) -> int:
        """Failures since the last success."""
        return self.view().consecutive_failures

    @property
    def consecutive_successes(self) -> int:
        """Successes since the last failure."""
        return self.view().consecutive_successes

    @property
    def half_open_calls(self) -> int:
        """Probes in flight."""
        return self.view().in_flight

    @property
    def error_rate(self) -> float:
        """Failures per call, 0..1."""
        circuit = self.view()
        return circuit.failures / circuit.total_calls if circuit.total_calls else 0.0

    @property
    def response_times(self) -> list[float]:
        """Durations of the last 100 successful calls."""
        return list(self._durations)

    @property
    def avg_response_time(self) -> float:
        """Mean of `response_times`, 0 when there are none."""
        return fmean(self._durations) if self._durations else 0.0

    def observe(self, outcome: Outcome, seconds: float, *, slow: bool) -> None:
        """Take in one finished call."""
        if outcome is Outcome.FAILURE:
            self.last_failure_time = time.time()
        elif outcome is Outcome.SUCCESS:
            self._durations.append(seconds)
            self.slow_calls += slow

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
        self._clock = clock
        self._store = store or LocalCircuitStore(self.config, clock)
        self._lock = threading.Lock()
        self.metrics = CircuitBreakerMetrics(name, self._store.view)

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

    async def admit(self, within: float = math.inf) -> Permit:
        """Ask leave for one call; the permit must come back through `settle`, whatever happens.

        Args:
            within: seconds that the call has, at most; `config.timeout` where nothing bounds it. A probe whose
                worker is killed gives its place back a second later.

        Raises:
            CircuitBreakerError: the circuit is open, or half-open with all its probes out.
        """
        seconds = self.config.timeout if math.isinf(within) else within
        decision, change = await self._store.admit(seconds + LEASE_MARGIN)
        if change is not None:
            self._tell(change)
        if isinstance(decision, Rejection):
            raise CircuitBreakerError(
                f"Circuit breaker '{self.name}' {decision.reason}", None, None, round(decision.retry_after, 3)
            )
        return decision

    async def settle(self, permit: Permit, outcome: Outcome, seconds: float) -> None:
        """Hand a permit back: what came of the call, and how long it took."""
        slow = outcome is Outcome.SUCCESS and seconds >= self.config.slow_call_threshold
        change = await self._store.record(permit, outcome, slow=slow)
        with self._lock:
            self.metrics.observe(outcome, seconds, slow=slow)
        if change is not None:
            self._tell(change)

    async def reset(self) -> None:
        """Close the circuit, release it from whatever people ordered, and start counting anew."""
        await self._order(Order.RESET)
        self.metrics = CircuitBreakerMetrics(self.name, self._store.view)

    async def force_open(self, *, hold: bool = False) -> None:
        """Open the circuit; it tries again after `recovery_timeout` or, with `hold`, not before `reset`."""
        await self._order(Order.HOLD if hold else Order.OPEN)
        self.metrics.last_failure_time = time.time()

    async def disable(self) -> None:
        """Let every call through, whatever comes of it, until `reset`."""
        await self._order(Order.DISABLE)

    @property
    def overdue(self) -> bool:
        """Whether `flush` has something to tell that has waited for long."""
        return self._store.overdue

    async def flush(self) -> None:
        """Tell the store now what it would be told later: at the end of a piece of work, or of the process."""
        change = await self._store.flush()
        if change is not None:
            self._tell(change)

    async def _order(self, order: Order) -> None:
        change = await self._store.order(order)
        if change is not None:
            self._tell(change)

    def _tell(self, change: Change) -> None:
        self.metrics.state_change_time = time.time()
        events.emit(events.CircuitChanged(self.name, change.old, change.new, change.cause))
