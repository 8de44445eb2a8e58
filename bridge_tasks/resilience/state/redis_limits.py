"""A service's limits as the whole fleet sees them: in Redis, by its clock; by this process's own while it is away.

One script call each, on one key each. The local store knows only what it was told while Redis was away, and is not
asked once it is back: what the fleet knows wins.
"""

from collections.abc import Callable

from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.fleet import FULL_PACE, SECOND, News, Pulse
from bridge_tasks.resilience.policy.limits import Grant, Rate
from bridge_tasks.resilience.state.limits_port import LimitStore
from bridge_tasks.resilience.state.shared_redis import Script, SharedRedis, StoreUnavailable

_PULSE = Script("limit_pulse")
_TAKE = Script("limit_take")


class RedisLimitStore:
    """A `LimitStore` in Redis.

    Args:
        service: whose limits; no braces.
        config: the retry budget's numbers.
        shared: the fleet's Redis.
        local: what to go on with while it is away.
        server_clock: seconds, in place of the server's own clock; for tests.
    """

    def __init__(
        self,
        service: str,
        config: BudgetConfig,
        shared: SharedRedis,
        *,
        local: LimitStore,
        server_clock: Callable[[], float] | None = None,
    ) -> None:
        self._service = service
        self._budget = (round(config.ratio * 1000), config.reserve)
        self._shared = shared
        self._local = local
        self._server_clock = server_clock

    async def pulse(self, news: News) -> Pulse:
        """Tell what happened, and hear how things are."""
        told = (news.tries, int(news.wants_retry), news.hold, int(news.throttled))
        try:
            granted, hold, pace = await self._shared.run(
                _PULSE, [f"bridge:v1:limits:{{{self._service}}}"], (*told, *self._budget, *self._time())
            )
        except StoreUnavailable:
            return await self._local.pulse(news)
        return Pulse(bool(granted), hold, pace)

    async def take(self, group: str, rate: Rate, pace: int, want: int, patience: int) -> Grant:
        """Take tokens of one group's rate."""
        interval = rate.interval * FULL_PACE // pace
        try:
            tokens, wait = await self._shared.run(
                _TAKE,
                [f"bridge:v1:rate:{{{self._service}/{group}}}"],
                (interval, rate.burst, want, patience, *self._time()),
            )
        except StoreUnavailable:
            return await self._local.take(group, rate, pace, want, patience)
        return Grant(tokens, wait)

    def _time(self) -> tuple[int, ...]:
        return () if self._server_clock is None else (round(self._server_clock() * SECOND),)
