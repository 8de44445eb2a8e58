"""What a process has seen of a shared circuit and not told yet: its successes, put by to be told together.

Plain bookkeeping: it knows no Redis, no clock and no lock. Whoever owns one guards it.
"""

from dataclasses import dataclass

from bridge_tasks.resilience.policy.breaker import Circuit, micros
from bridge_tasks.resilience.state.circuit_script import Told

BATCH = 32
"""Successes told in one message."""

LONGEST_SECONDS = 1.0
"""How long a success may wait to be told; as long as a snapshot answers."""


@dataclass(slots=True)
class PutBy:
    """Successes of one epoch that were not told yet."""

    epoch: int = 0
    successes: int = 0
    slow: int = 0
    first_at: float = 0.0
    last_at: float = 0.0

    def add(self, epoch: int, *, slow: bool, now: float) -> bool:
        """Put one success by; False: it is late news, of an epoch that is over, and would only be counted."""
        if not self.successes:
            self.epoch, self.slow, self.first_at = epoch, 0, now
        elif epoch != self.epoch:
            if epoch < self.epoch:
                return False
            self.epoch, self.successes, self.slow, self.first_at = epoch, 0, 0, now
        self.successes += 1
        self.slow += slow
        self.last_at = now
        return True

    def due(self, now: float) -> bool:
        """Say whether now is the time to tell."""
        return self.successes >= BATCH or self.overdue(now)

    def overdue(self, now: float) -> bool:
        """Say whether something has waited for longer than it may."""
        return self.successes > 0 and now - self.first_at > LONGEST_SECONDS

    def told(self, now: float) -> Told | None:
        """Return what is to be told, if anything."""
        if not self.successes:
            return None
        return Told(self.epoch, self.successes, 0, self.slow, max(micros(now - self.last_at), 0))

    def on_top_of(self, circuit: Circuit) -> Circuit:
        """Return the circuit with these successes counted in."""
        if not self.successes:
            return circuit
        total, successes = circuit.total_calls + self.successes, circuit.successes + self.successes
        if self.epoch != circuit.epoch:
            return circuit._replace(total_calls=total, successes=successes)
        return circuit._replace(
            total_calls=total,
            successes=successes,
            consecutive_failures=0,
            consecutive_successes=circuit.consecutive_successes + self.successes,
        )
