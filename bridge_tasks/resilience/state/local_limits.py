"""A service's limits as this process alone sees them: what there is without Redis, and while Redis is away."""

import threading
from collections.abc import Callable

from bridge_tasks.resilience.policy import fleet, limits
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.fleet import SECOND, Fleet, News, Pulse
from bridge_tasks.resilience.policy.limits import Grant, Rate


class LocalLimitStore:
    """A `LimitStore` in memory. The lock is held for one pure function, never across a call.

    Args:
        config: the retry budget's numbers.
        clock: seconds, monotonic.
    """

    def __init__(self, config: BudgetConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._fleet = Fleet()
        self._full_at: dict[str, int] = {}
        self._lock = threading.Lock()

    async def pulse(self, news: News) -> Pulse:
        """Tell what happened, and hear how things are."""
        with self._lock:
            self._fleet, pulse = fleet.pulse(self._fleet, self._config, news, self._now())
        return pulse

    async def take(self, group: str, rate: Rate, pace: int, want: int, patience: int) -> Grant:
        """Take tokens of one group's rate."""
        with self._lock:
            full_at = self._full_at.get(group, 0)
            self._full_at[group], grant = limits.take(full_at, rate, pace, want, patience, self._now())
        return grant

    def _now(self) -> int:
        return round(self._clock() * SECOND)
