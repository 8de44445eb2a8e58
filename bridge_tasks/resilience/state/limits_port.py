"""The port: how a process tells and asks what concerns everybody who calls a service, wherever that is kept.

Methods are coroutines because a store may be far away; on the blocking bottom they never suspend. They never raise
for want of a store: a store that is away has a local one to go on with. Times are whole microseconds.
"""

from typing import Protocol

from bridge_tasks.resilience.policy.fleet import News, Pulse
from bridge_tasks.resilience.policy.limits import Grant, Rate


class LimitStore(Protocol):
    """What is known of one service. Safe under threads and tasks."""

    async def pulse(self, news: News) -> Pulse:
        """Tell what happened, and hear how things are."""
        ...

    async def take(self, group: str, rate: Rate, pace: int, want: int, patience: int) -> Grant:
        """Take tokens of one group's rate, as `policy.limits.take` says."""
        ...
