"""A circuit remembered in this process: correct, fast, and unknown to every other process."""

import threading
from collections.abc import Callable

from bridge_tasks.resilience.policy import breaker
from bridge_tasks.resilience.policy.breaker import Circuit, CircuitBreakerConfig, Outcome, Permit, Rejection
from bridge_tasks.resilience.state.port import Moved


class LocalCircuitStore:
    """A `CircuitStore` in memory. The lock is held for one pure function, never across a call.

    Args:
        config: the rules' numbers.
        clock: seconds, monotonic.
    """

    def __init__(self, config: CircuitBreakerConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._circuit = Circuit()
        self._lock = threading.Lock()

    async def admit(self) -> tuple[Moved, Permit | Rejection]:
        """Ask leave for one call."""
        with self._lock:
            before = self._circuit
            self._circuit, decision = breaker.admit(before, self._config, self._clock())
            return Moved(before, self._circuit), decision

    async def record(self, permit: Permit, outcome: Outcome) -> Moved:
        """Hand a permit back with what came of the call."""
        return self._move(lambda seen: breaker.record(seen, self._config, permit, outcome, self._clock()))

    async def force_open(self) -> Moved:
        """Open it by hand; it recovers after `recovery_timeout` like any other opening."""
        return self._move(lambda seen: breaker.force_open(seen, self._clock()))

    async def reset(self) -> Moved:
        """Close it by hand and forget its counts."""
        return self._move(breaker.reset)

    def _move(self, rule: Callable[[Circuit], Circuit]) -> Moved:
        with self._lock:
            before = self._circuit
            self._circuit = rule(before)
            return Moved(before, self._circuit)
