"""When to try again, and after how long. Seconds throughout; `chance` is a number drawn from [0, 1)."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})
"""The service, or what stands before it, asks for another try later."""

UNPROCESSED_STATUSES = frozenset({429, 503})
"""By their meaning nothing was done, so that even a call with side effects may be repeated."""

LONGEST_HINT = 3600.0
"""A `Retry-After` beyond an hour is taken as an hour: longer waits are for people to decide."""


@dataclass(frozen=True)
class RetryConfig:
    """How often and how patiently.

    Attributes:
        attempts: tries in total (client-guide.md's `max_retries`).
        initial: seconds before the second try, doubled with each further one.
        maximum: seconds that no pause of our own exceeds (the known client's 10).
        patience: seconds that a service's `Retry-After` may ask for and be waited for on the spot; where it asks
            for more, the tries end and the caller hears how long (a task goes back to its queue). No bound by
            default.
    """

    attempts: int = 3
    initial: float = 0.5
    maximum: float = 10.0
    patience: float = math.inf

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("attempts must be at least 1")
        if not 0 <= self.initial <= self.maximum:
            raise ValueError("initial must be between 0 and maximum seconds")
        if not self.patience >= 0:
            raise ValueError("patience must not be negative")

    @property
    def longest(self) -> float:
        """The sum of all pauses at their longest."""
        return sum(backoff(self, attempt, 1.0) for attempt in range(1, self.attempts))


def backoff(config: RetryConfig, attempt: int, chance: float) -> float:
    """Return the pause after try number `attempt` (from 1): doubling, the later half of it by chance."""
    ceiling = min(config.maximum, config.initial * 2.0 ** min(attempt - 1, 32))
    return ceiling * (0.5 + chance / 2)


def pause(config: RetryConfig, attempt: int, chance: float, remaining: float, hint: float | None) -> float | None:
    """Return the pause before the next try, or None to give up.

    The service's own hint is honoured in full; one beyond our patience, or that does not fit into `remaining`,
    ends the tries, and goes to the caller instead.
    """
    if attempt >= config.attempts or (hint or 0.0) > config.patience:
        return None
    wait = max(backoff(config, attempt, chance), hint or 0.0)
    return wait if wait < remaining else None


def retry_after(header: str | None, now: datetime) -> float | None:
    """Read a `Retry-After` header (seconds or an HTTP date): seconds from now, 0 for the past, else None."""
    if not isinstance(header, str):
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), LONGEST_HINT)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_HINT)
