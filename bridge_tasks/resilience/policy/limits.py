"""How many calls may go out: rates per group of operations, and how one token after the other becomes free.

`take` is GCRA: one number per rate, the time at which its bucket will be full again (`state/lua/limit_take.lua`
does the same in Redis). Whole microseconds throughout. The numbers are chosen so that no minute, wherever it
begins, sees more calls than the limit, although processes reserve tokens ahead.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bridge_tasks.resilience.policy.fleet import FULL_PACE, SECOND

MINUTE = 60 * SECOND
KEEP = SECOND
"""How long a process may keep a token it has reserved; one not used by then is void."""

STANDARD = "standard"
GROUPS: Mapping[str, str] = {"batch_create_stamps": "batch", "generate_hash": "hash", "health_check": "health"}
"""The service's documentation limits these apart from everything else (wire-contract.md 1.2: documented only)."""

PRESETS: Mapping[str, Mapping[str, int]] = {
    "off": {},
    "documented": {STANDARD: 1000, "batch": 100, "hash": 2000, "health": 100},
}
"""Calls per minute."""


@dataclass(frozen=True)
class LimitsConfig:
    """How much of a service's attention we take.

    Attributes:
        preset: `off`, or `documented`: 1000 calls a minute, 100 batches, 2000 hashes, 100 health checks.
        per_minute: calls per minute, by group (`standard`, `batch`, `hash`, `health`) or by operation
            (`get_stamp`); wins over the preset. An operation named here is counted by itself.
        max_wait: seconds that a call waits for its turn; one that would wait longer is refused, and a task goes
            back to its queue.
        max_concurrent: calls of one process that may be under way at a time; 0 for any number.
    """

    preset: Literal["off", "documented"] = "off"
    per_minute: Mapping[str, int] = field(default_factory=dict)
    max_wait: float = 0.2
    max_concurrent: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}")
        if any(limit < 1 for limit in self.per_minute.values()):
            raise ValueError("per_minute must be at least 1; leave a name out for no limit")
        if any(not name.isidentifier() for name in self.per_minute):
            raise ValueError("per_minute must name groups or operations")
        if not 0 <= self.max_wait <= 60:  # noqa: PLR2004 - a minute in a worker's slot is more than enough
            raise ValueError("max_wait must be between 0 and 60 seconds")
        if self.max_concurrent < 0:
            raise ValueError("max_concurrent must not be negative")

    @property
    def rates(self) -> dict[str, int]:
        """Calls per minute by group or operation."""
        return {**PRESETS[self.preset], **self.per_minute}

    def group(self, operation: str) -> str | None:
        """Return the name under which `operation` is counted, None where it has no limit."""
        rates = self.rates
        name = operation if operation in rates else GROUPS.get(operation, STANDARD)
        return name if name in rates else None


@dataclass(frozen=True, slots=True)
class Rate:
    """One token every `interval` microseconds, `burst` of them at once."""

    interval: int
    burst: int

    @property
    def block(self) -> int:
        """Tokens that one process may reserve at once: enough to save round trips, few enough to share."""
        return max(1, self.burst // 4)


def rate(per_minute: int) -> Rate:
    """Return the rate that keeps every minute within the limit.

    In a minute and the time for which tokens are kept, `burst` tokens and one per interval come free. A second's
    worth of burst leaves 97 % of the limit to a fleet that uses all of it.
    """
    burst = max(1, per_minute // 60)
    return Rate(math.ceil((MINUTE + KEEP) / (per_minute - burst + 1)), burst)


@dataclass(frozen=True, slots=True)
class Grant:
    """`tokens` to be used `wait` microseconds from now; none: `wait` is when to ask again."""

    tokens: int
    wait: int = 0


def take(full_at: int, wanted: Rate, pace: int, want: int, patience: int, now: int) -> tuple[int, Grant]:
    """Take up to `want` tokens that are free, or one that will be within `patience` microseconds.

    Args:
        full_at: the state: when the bucket will be full again; 0 at first.
        wanted: the rate.
        pace: thousandths of the rate to go at.
        want: tokens, at least 1.
        patience: how long the caller may wait for a token.
        now: the time.
    """
    interval = wanted.interval * FULL_PACE // pace
    depth = wanted.burst * interval
    full_at = max(now, min(full_at, now + depth + patience))  # a clock that stepped back costs one bucket
    free = (now + depth - full_at) // interval
    if free >= 1:
        tokens = min(want, free)
        return full_at + tokens * interval, Grant(tokens)
    wait = full_at + interval - depth - now
    if wait <= patience:
        return full_at + interval, Grant(1, wait)
    return full_at, Grant(0, wait)
