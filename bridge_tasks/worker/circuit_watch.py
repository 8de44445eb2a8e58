"""What a worker's main process knows of one circuit: pushed as it changes, and looked up now and then.

It looks, and never calls, reports or writes. While Redis is away, what was known stays known.
"""

import threading
import time
from collections.abc import Callable, Sequence

from bridge_tasks.resilience.policy.circuit import Circuit
from bridge_tasks.resilience.state import circuit_script
from bridge_tasks.resilience.state.circuit_script import Asker, Told
from bridge_tasks.resilience.state.shared_redis import StoreUnavailable
from bridge_tasks.runtime import Runtime

_CHANCE = 0.5
"""Nothing that a look says depends on chance."""


class CircuitWatch:
    """A circuit, seen from outside.

    Args:
        service: `metadata` or `onextree`, whose circuit it is.
        runtime: this process's: the circuit's name and numbers, Redis, and who brings news.
        changed: called after a change was pushed, from the thread that heard of it.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        service: str,
        runtime: Runtime,
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        breaker = {"metadata": runtime.metadata, "onextree": runtime.onextree}[service].circuit_breaker
        self.service = service
        self.name = breaker.name
        self.config = breaker.config
        self._runtime = runtime
        self._changed = changed
        self._clock = clock
        self._lock = threading.Lock()
        self._heard_at = float("-inf")
        self.circuit = Circuit()

    def follow(self) -> None:
        """Be told of changes from now on. Idempotent."""
        self._runtime.circuit_news.follow(self)

    def look(self) -> None:
        """Ask Redis; it takes no longer than shared state may take, and says nothing where Redis is away."""
        asked_at = self._clock()
        asked = circuit_script.ask(
            self._runtime.shared,
            Asker(self.name, self.config),
            Told(),
            circuit_script.LOOK,
            now=asked_at,
            chance=_CHANCE,
        )
        try:
            numbers = self._runtime.run(asked)
        except StoreUnavailable:
            return
        seen = circuit_script.read(numbers, self._clock()).circuit
        with self._lock:
            if seen.epoch >= self.circuit.epoch or asked_at > self._heard_at:
                self.circuit = seen

    def learn(self, numbers: Sequence[int]) -> None:
        """Take in a pushed change, unless something newer is known."""
        now = self._clock()
        seen = circuit_script.read(numbers, now).circuit
        with self._lock:
            if seen.epoch <= self.circuit.epoch:
                return
            self.circuit = seen
            self._heard_at = now
        self._changed()

    def doubt(self) -> None:
        """Do nothing about what may have been missed: the next look is about a second away."""
