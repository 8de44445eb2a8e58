"""A circuit remembered in this process: correct, fast, and unknown to every other process."""

import itertools
import random
import threading
from collections.abc import Callable

from bridge_tasks.resilience.policy import breaker
from bridge_tasks.resilience.policy.breaker import (
    Circuit,
    CircuitBreakerConfig,
    News,
    Order,
    Outcome,
    Permit,
    Rejection,
    micros,
)
from bridge_tasks.resilience.state.port import Change, change


class LocalCircuitStore:
    """A `CircuitStore` in memory. The lock is held for one pure function, never across a call.

    Args:
        config: the rules' numbers.
        clock: seconds, monotonic.
        chance: a number drawn from [0, 1).
        circuit: what to begin with; times in microseconds of `clock`.
    """

    def __init__(
        self,
        config: CircuitBreakerConfig,
        clock: Callable[[], float],
        *,
        chance: Callable[[], float] = random.random,
        circuit: Circuit | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._chance = chance
        self._circuit = circuit or Circuit()
        self._lock = threading.Lock()
        self._tokens = itertools.count(1)

    def view(self) -> Circuit:
        """Return the circuit."""
        return self._circuit

    async def admit(self, lease: float) -> tuple[Permit | Rejection, Change | None]:
        """Ask leave for one call."""
        circuit = self._circuit
        if circuit.flows:
            return Permit(circuit.epoch), None
        with self._lock:
            before = self._circuit
            self._circuit, decision = breaker.admit(
                before,
                self._config,
                micros(self._clock()),
                token=str(next(self._tokens)),
                lease=micros(lease),
                chance=self._chance(),
            )
            return decision, change(before, self._circuit)

    async def record(self, permit: Permit, outcome: Outcome, *, slow: bool = False) -> Change | None:
        """Hand a permit back with what came of the call."""
        now = micros(self._clock())
        good, bad = outcome is Outcome.SUCCESS, outcome is Outcome.FAILURE
        news = News(permit.epoch, good, bad, good and slow, now, permit.token)
        return self._become(lambda seen: breaker.report(seen, self._config, news, now, self._chance()))

    async def order(self, order: Order) -> Change | None:
        """Open, hold, disable or reset it by hand."""
        return self._become(lambda seen: breaker.obey(seen, self._config, order, micros(self._clock())))

    @property
    def overdue(self) -> bool:
        """Whether something was put by: never."""
        return False

    async def flush(self) -> None:
        """Have nothing to tell."""

    def _become(self, rule: Callable[[Circuit], Circuit]) -> Change | None:
        with self._lock:
            before = self._circuit
            self._circuit = rule(before)
            return change(before, self._circuit)
