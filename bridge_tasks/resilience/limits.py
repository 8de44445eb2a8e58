"""What one process knows and obeys of one service's limits, between its calls and the store that all share.

A call costs a look at the clock and a count. Once a second, and when something went wrong, one exchange tells the
fleet what this process did and brings back what the others met; tokens come in blocks. Nothing here waits: whoever
calls is told how long. No lock is held across an exchange.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from bridge_tasks import events
from bridge_tasks.resilience.policy import budget
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.fleet import FULL_PACE, LONGEST_HOLD, ONE_COMPLAINT, SECOND, News
from bridge_tasks.resilience.policy.limits import KEEP, LimitsConfig, rate
from bridge_tasks.resilience.state.limits_port import LimitStore
from bridge_tasks.resilience.state.local_limits import LocalLimitStore

REFRESH = 1.0
"""Seconds after which what the fleet knows is asked again, when the next call comes."""

SPREAD = 0.1
"""A hold is prolonged by up to this share, drawn by each process, so that not all come back at once."""


SLACK = 0.25
"""Seconds by which a hold that comes back from the fleet may differ from what was told: it is the same one."""


class ServiceLimits:
    """The limits of one service. Thread-safe.

    Args:
        service: whose limits, for events.
        limits: rates, and how long to wait for them.
        retries: the retry budget.
        clock: seconds, monotonic.
        chance: a number drawn from [0, 1).
        store: where the fleet's knowledge is kept; this process is the fleet by default.
    """

    def __init__(
        self,
        service: str,
        limits: LimitsConfig,
        retries: BudgetConfig,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        store: LimitStore | None = None,
    ) -> None:
        self.service = service
        self.limits = limits
        self._budget = retries
        self._store = store or LocalLimitStore(retries, clock)
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._blocks = {group: _Block() for group in limits.rates}
        self._rates = {group: rate(per_minute) for group, per_minute in limits.rates.items()}
        self._group: dict[str, str | None] = {}
        self._tries = 0
        self._next_pulse = 0.0
        self._held_until = 0.0
        self._pace = FULL_PACE
        self._complained_at = 0.0
        self._refused_until = 0.0
        self._tokens = retries.quota

    @classmethod
    def alone(cls, clock: Callable[[], float], chance: Callable[[], float]) -> Self:
        """Make the limits of a service of which nothing is configured, known to this process only."""
        return cls("unknown", LimitsConfig(), BudgetConfig(), clock=clock, chance=chance)

    # ------------------------------------------------------------------ calls

    async def hold(self) -> float:
        """Return the seconds for which the service is to be left alone; 0 almost always."""
        now = self._clock()
        if now >= self._next_pulse:
            await self._exchange()
        return max(self._held_until - now, 0.0)

    async def take(self, operation: str, patience: float) -> tuple[bool, float]:
        """Take a token for one call: whether it may go, and in how many seconds (or when to ask again)."""
        group = self._group_of(operation)
        if group is None:
            return True, 0.0
        block = self._blocks[group]
        now = self._clock()
        with self._lock:
            if block.use(now):
                return True, 0.0
            want = block.next_size(now, self._rates[group].block)
        grant = await self._store.take(group, self._rates[group], self._pace, want, int(patience * SECOND))
        if grant.tokens > 0:
            with self._lock:
                block.fill(grant.tokens - 1, now)
        return grant.tokens > 0, grant.wait / SECOND

    def tried(self) -> None:
        """Count a request that was sent."""
        with self._lock:
            self._tries += 1

    def unused(self, operation: str) -> None:
        """Give a token back: the call was not made after all."""
        group = self._group_of(operation)
        if group is not None:
            with self._lock:
                self._blocks[group].put_back(self._clock())

    async def throttled(self, hint: float | None) -> None:
        """Take in a 429 or 503; `hint` is how long the service wants to be left alone, in seconds."""
        now = self._clock()
        asked = min(round((hint or 0.0) * SECOND), LONGEST_HOLD)
        news = bool(asked) and self._hold_for(asked / SECOND, now)
        complaint = bool(self._rates) and now - self._complained_at >= ONE_COMPLAINT / SECOND
        if complaint:
            self._complained_at = now
        if news or complaint:
            await self._exchange(News(hold=asked, throttled=True))

    # ---------------------------------------------------------------- retries

    async def buy_retry(self, *, throttled: bool = False) -> int:
        """Pay for one retry (or hedge) and return its price in tokens; 0: the budget does not bear it."""
        now = self._clock()
        with self._lock:
            left = budget.withdrawn(self._budget, self._tokens, throttled=throttled)
            if left is None or now < self._refused_until:
                return 0
            price, self._tokens = self._tokens - left, left
        if await self._exchange(News(wants_retry=True)):
            return price
        with self._lock:
            self._tokens += price
            self._refused_until = now + REFRESH  # asking again before the window moves is a waste
        return 0

    def succeeded(self, spent: int = 0) -> None:
        """Take in a success, after a retry that cost `spent` tokens, or at the first try."""
        if self._tokens < self._budget.quota:
            with self._lock:
                self._tokens = budget.refunded(self._budget, self._tokens, spent)

    # --------------------------------------------------------------- the fleet

    @property
    def limited(self) -> bool:
        """Whether any rate is set."""
        return bool(self._rates)

    @property
    def held(self) -> float:
        """The seconds for which the service is to be left alone, as this process knows without asking."""
        return max(self._held_until - self._clock(), 0.0)

    async def _exchange(self, news: News | None = None) -> bool:
        news = news or News()
        with self._lock:
            tries, self._tries = self._tries, 0
            self._next_pulse = self._clock() + REFRESH  # claimed: others go on with what is known
        pulse = await self._store.pulse(News(tries, news.wants_retry, news.hold, news.throttled))
        if pulse.hold:
            self._hold_for(pulse.hold / SECOND, self._clock())
        if self._rates and pulse.pace < self._pace:
            events.emit(events.PaceLowered(self.service, pulse.pace / FULL_PACE))
        self._pace = pulse.pace
        return pulse.granted

    def _hold_for(self, seconds: float, now: float) -> bool:
        """Hold back for a while; say whether that was news."""
        with self._lock:
            if now + seconds <= self._held_until + SLACK:
                return False
            self._held_until = now + seconds * (1 + SPREAD * self._chance())
        events.emit(events.PatienceAsked(self.service, seconds))
        return True

    def _group_of(self, operation: str) -> str | None:
        if not self._rates:
            return None
        if operation not in self._group:
            self._group[operation] = self.limits.group(operation)
        return self._group[operation]


@dataclass(slots=True)
class _Block:
    """Tokens that this process has reserved; the next block is larger where one was used up, smaller otherwise."""

    tokens: int = 0
    until: float = 0.0
    size: int = 1

    def use(self, now: float) -> bool:
        if self.tokens < 1 or now >= self.until:
            return False
        self.tokens -= 1
        return True

    def next_size(self, now: float, largest: int) -> int:
        wasted, quick = self.tokens > 0, now < self.until
        self.size = max(1, self.size // 2) if wasted else min(largest, self.size * 2) if quick else self.size
        return self.size

    def fill(self, tokens: int, now: float) -> None:
        if now < self.until and self.tokens > 0:  # somebody else was quicker: the older tokens set the time
            self.tokens += tokens
        else:
            self.tokens, self.until = tokens, now + KEEP / SECOND

    def put_back(self, now: float) -> None:
        if now < self.until:
            self.tokens += 1
