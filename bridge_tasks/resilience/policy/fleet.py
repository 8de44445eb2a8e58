"""What the fleet knows of one service: its tries and retries of late, how long to hold back, how fast to go.

`state/lua/limit_pulse.lua` does the same in Redis. Whole microseconds and thousandths, so that both agree to the
last digit. A clock that steps back never holds anybody longer than the longest hold.
"""

from dataclasses import dataclass

from bridge_tasks.resilience.policy.budget import BudgetConfig, affordable

SECOND = 1_000_000
"""Time is in microseconds here."""

WINDOW = 10
"""Seconds over which tries and retries are weighed, in buckets of one."""

LONGEST_HOLD = 60 * SECOND
"""A service may ask the whole fleet for a minute's patience at most; a single call honours what it was told."""

FULL_PACE = 1000
SLOWEST_PACE = 50
"""Thousandths of the configured rate: a service that throttles is still asked now and then."""

SLOWED = 700
"""What is left of the pace after a 429 or 503, in thousandths (CUBIC's beta in the AWS SDKs)."""

RECOVERED = 50
"""Thousandths of the configured rate that come back in each second without one."""

ONE_COMPLAINT = SECOND
"""All 429 and 503 within this time are one complaint about one burst."""


@dataclass(frozen=True, slots=True)
class News:
    """What a process has to tell and to ask.

    Attributes:
        tries: requests sent since it last told, retries included.
        wants_retry: whether it asks leave for one retry.
        hold: microseconds that the service asked to be left alone; 0 for not at all.
        throttled: whether the service said 429 or 503.
    """

    tries: int = 0
    wants_retry: bool = False
    hold: int = 0
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class Pulse:
    """What it hears back.

    Attributes:
        granted: whether the retry it asked for fits into the fleet's share.
        hold: microseconds during which nothing is to be sent.
        pace: thousandths of the configured rates to go at.
    """

    granted: bool = False
    hold: int = 0
    pace: int = FULL_PACE


@dataclass(frozen=True, slots=True)
class Fleet:
    """The state: `seconds` holds (second, tries, retries) of the window; `pace` is as of `paced_at`."""

    seconds: tuple[tuple[int, int, int], ...] = ()
    hold_until: int = 0
    pace: int = FULL_PACE
    paced_at: int = 0


def pulse(fleet: Fleet, config: BudgetConfig, news: News, now: int) -> tuple[Fleet, Pulse]:
    """Take in what one process tells at `now`, and answer it."""
    second = now // SECOND
    recent = tuple(row for row in fleet.seconds if second - WINDOW < row[0] < second)
    _, tries, retries = next((row for row in fleet.seconds if row[0] == second), (second, 0, 0))
    tries += news.tries
    granted = news.wants_retry and affordable(
        config, tries + sum(row[1] for row in recent), retries + sum(row[2] for row in recent)
    )
    hold_until = min(max(fleet.hold_until, now + news.hold if news.hold else 0), now + LONGEST_HOLD)
    pace, paced_at = pace_after(fleet, now, throttled=news.throttled)
    after = Fleet((*recent, (second, tries, retries + granted)), hold_until, pace, paced_at)
    return after, Pulse(granted, max(hold_until - now, 0), pace_at(after, now))


def pace_at(fleet: Fleet, now: int) -> int:
    """Return the pace: it comes back in a straight line."""
    return min(FULL_PACE, fleet.pace + max(now - fleet.paced_at, 0) * RECOVERED // SECOND)


def pace_after(fleet: Fleet, now: int, *, throttled: bool) -> tuple[int, int]:
    """Return the pace and its moment after a try: less of it once per complaint, the same otherwise."""
    if throttled and not 0 <= now - fleet.paced_at < ONE_COMPLAINT:
        return max(SLOWEST_PACE, pace_at(fleet, now) * SLOWED // 1000), now
    return fleet.pace, min(fleet.paced_at, now)
