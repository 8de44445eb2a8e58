"""How many retries a service can bear: a quota per process, and a share of what the whole fleet sends.

The quota is the one of the AWS SDKs (500 tokens, 14 a retry, 5 where the service throttles; a retry that succeeds
gives its price back, a call that succeeds at once gives one token): it stops a process whose retries do not help.
The share stops a fleet of processes that have just begun, each with its quota full.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class BudgetConfig:
    """The price of a retry.

    Attributes:
        ratio: retries per call over the whole fleet, in any ten seconds (Google's SRE book: 0.1).
        reserve: retries in those ten seconds on top, so that a quiet service has any at all. From 10 calls a
            second on, 0.1 and 10 together raise what is offered to a dead service by at most a fifth.
        quota: tokens that a process has for a service, at most and at first.
        cost: tokens for a retry.
        throttled_cost: tokens for a retry after 429 or 503, by which the service says that it is there.
    """

    ratio: float = 0.1
    reserve: int = 10
    quota: int = 500
    cost: int = 14
    throttled_cost: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1000:  # noqa: PLR2004 - a thousand retries per call is "without limit"
            raise ValueError("ratio must be between 0 and 1000")
        if self.reserve < 0:
            raise ValueError("reserve must not be negative")
        if not 0 < self.throttled_cost <= self.cost <= self.quota:
            raise ValueError("0 < throttled_cost <= cost <= quota must hold")

    def price(self, *, throttled: bool) -> int:
        """Return the tokens that a retry costs."""
        return self.throttled_cost if throttled else self.cost


def withdrawn(config: BudgetConfig, tokens: int, *, throttled: bool) -> int | None:
    """Return the tokens left after a retry, or None where there are too few."""
    left = tokens - config.price(throttled=throttled)
    return left if left >= 0 else None


def refunded(config: BudgetConfig, tokens: int, spent: int) -> int:
    """Return the tokens after a success: what its last retry cost comes back, or one where there was none."""
    return min(config.quota, tokens + (spent or 1))


def affordable(config: BudgetConfig, tries: int, retries: int) -> bool:
    """Say whether one more retry keeps the fleet's within their share; `tries` counts the `retries` too.

    In thousandths, so that a script in Redis comes to the same answer.
    """
    calls = max(tries - retries, 0)
    return (retries + 1) * 1000 <= round(config.ratio * 1000) * calls + config.reserve * 1000
