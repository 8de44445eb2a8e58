"""The port: how a circuit breaker asks and tells one circuit's state, wherever that is kept.

Methods are coroutines because a store may be far away; on the blocking bottom they never suspend. A store
decides by `policy.breaker` and nothing else, and no trouble of its own ever reaches the caller.
"""

from dataclasses import dataclass
from typing import Protocol

from bridge_tasks.resilience.policy.breaker import (
    Cause,
    Circuit,
    CircuitState,
    Order,
    Outcome,
    Permit,
    Rejection,
)


@dataclass(frozen=True, slots=True)
class Change:
    """A transition, told to the one whose call made it, and to nobody else."""

    old: CircuitState
    new: CircuitState
    cause: Cause


class CircuitStore(Protocol):
    """One circuit's memory. Safe under threads and tasks."""

    def view(self) -> Circuit:
        """Return what is known here and now, without asking anybody."""
        ...

    async def admit(self, lease: float) -> tuple[Permit | Rejection, Change | None]:
        """Ask leave for one call; if it is a probe, it must be over in `lease` seconds to count."""
        ...

    async def record(self, permit: Permit, outcome: Outcome, *, slow: bool = False) -> Change | None:
        """Hand a permit back with what came of the call."""
        ...

    async def order(self, order: Order) -> Change | None:
        """Open, hold, disable or reset it by hand."""
        ...

    @property
    def overdue(self) -> bool:
        """Whether something was put by longer ago than a second."""
        ...

    async def flush(self) -> Change | None:
        """Tell at once what was put by to be told later."""
        ...


def change(before: Circuit, after: Circuit) -> Change | None:
    """Return the transition between two circuits, if there is one."""
    return None if before.state is after.state else Change(before.state, after.state, after.cause)
