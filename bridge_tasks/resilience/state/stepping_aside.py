"""When one process stops by itself, though the circuit that all share is closed: it alone sees the service fail.

One poisoned worker must neither open the circuit for the others nor go on failing. It steps aside for a while;
then one of its calls finds out whether it was the process, and a success ends it. Plain bookkeeping: it knows no
Redis and no lock. Whoever owns one guards it.
"""

from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig, CircuitState, Manual
from bridge_tasks.resilience.state.circuit_script import Reply

NEVER = float("-inf")


class Aside:
    """Whether this process has stepped aside from one circuit, and until when.

    Attributes:
        until: when the next call may find out; `NEVER` while the process takes part.
    """

    def __init__(self, config: CircuitBreakerConfig) -> None:
        self._config = config
        self._run = 0
        self.until = NEVER

    @property
    def taken(self) -> bool:
        """Whether it has stepped aside, and is not known to be well again."""
        return self.until != NEVER

    def failed(self, reply: Reply, now: float) -> bool:
        """Take in a failure of this process's own, and what all share after it; say whether it is aside now."""
        self._run += 1
        circuit = reply.circuit
        run = self._run >= self._config.failure_threshold
        reason = reply.suspect or (run and circuit.total_calls >= self._config.minimum_throughput)
        shut = circuit.state is not CircuitState.CLOSED or circuit.manual is not Manual.NONE
        if shut or not (self.taken or reason):
            return False
        self.until = now + self._config.recovery_timeout
        return True

    def succeeded(self) -> bool:
        """Take in a success; say whether it has ended the stepping aside."""
        ended, self._run, self.until = self.taken, 0, NEVER
        return ended

    def finds_out(self, until: float) -> None:
        """Let one call find out, and hold all others back until then."""
        if self.taken:
            self.until = until

    def forget(self) -> None:
        """Begin anew: the circuit has changed, and what was seen before it did says nothing."""
        self._run, self.until = 0, NEVER
