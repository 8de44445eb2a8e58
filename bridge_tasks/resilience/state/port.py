"""The port: how a circuit breaker asks and tells one circuit's state, wherever that is kept.

Methods are coroutines because a store may be far away; on the blocking bottom they never suspend. A store
decides by `policy.breaker` and nothing else.
"""

from dataclasses import dataclass
from typing import Protocol

from bridge_tasks.resilience.policy.breaker import Circuit, Outcome, Permit, Rejection


@dataclass(frozen=True, slots=True)
class Moved:
    """What a store did: the circuit before and after. Who gets it with two states made the transition."""

    before: Circuit
    after: Circuit


class CircuitStore(Protocol):
    """One circuit's memory. Safe under threads and tasks."""

    async def admit(self) -> tuple[Moved, Permit | Rejection]:
        """Ask leave for one call."""
        ...

    async def record(self, permit: Permit, outcome: Outcome) -> Moved:
        """Hand a permit back with what came of the call."""
        ...

    async def force_open(self) -> Moved:
        """Open it by hand."""
        ...

    async def reset(self) -> Moved:
        """Close it by hand and forget its counts."""
        ...
