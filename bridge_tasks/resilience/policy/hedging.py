"""When a second request is sent beside a slow first one: (pace, event) -> (pace, decision). Seconds throughout.

A hedge is sent after a fixed delay, or once a call takes longer than 95 of 100 calls of its operation did; and
never more than `share` of the calls in the long run, so that a service that is slow for all is not asked twice by
all.
"""

from dataclasses import dataclass, replace

KEPT = 100
"""Durations of good answers that are remembered per operation."""

ENOUGH = 20
"""Durations below which a percentile says nothing."""

PERCENTILE = 0.95
BURST = 5.0
"""Hedges that may be saved up."""


@dataclass(frozen=True)
class HedgingConfig:
    """Whether reads are hedged, when, and how many.

    Attributes:
        enabled: whether at all; off by default.
        delay: seconds after which the second request is sent; 0: the operation's own 95th percentile.
        share: hedges per call, in the long run, 0..1.
    """

    enabled: bool = False
    delay: float = 0.0
    share: float = 0.1

    def __post_init__(self) -> None:
        if self.delay < 0:
            raise ValueError("delay must not be negative")
        if not 0 < self.share <= 1:
            raise ValueError("share must be above 0, and 1 at most")


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one operation is, and the hedges saved up for it."""

    durations: tuple[float, ...] = ()
    credit: float = BURST


def begin(pace: Pace, config: HedgingConfig) -> tuple[Pace, float | None]:
    """Take in that a call begins; return the seconds after which to hedge it, or None: not at all."""
    pace = replace(pace, credit=min(BURST, pace.credit + config.share))
    if config.delay:
        return pace, config.delay
    if len(pace.durations) < ENOUGH:
        return pace, None
    return pace, sorted(pace.durations)[int(len(pace.durations) * PERCENTILE)]


def spend(pace: Pace) -> tuple[Pace, bool]:
    """Take in that a hedge is due; say whether it may be sent."""
    if pace.credit < 1:
        return pace, False
    return replace(pace, credit=pace.credit - 1), True


def finish(pace: Pace, seconds: float) -> Pace:
    """Take in how long a good answer took."""
    return replace(pace, durations=(*pace.durations[1 - KEPT :], seconds))
