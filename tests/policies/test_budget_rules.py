"""What a retry costs, and how many the fleet may have: only arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.resilience.policy.budget import BudgetConfig, affordable, refunded, withdrawn

CONFIG = BudgetConfig()


def burst(config: BudgetConfig, *, throttled: bool) -> int:
    """Retries that a full quota bears when none of them helps."""
    tokens: int | None = config.quota
    count = -1
    while tokens is not None:
        tokens = withdrawn(config, tokens, throttled=throttled)
        count += 1
    return count


def test_a_full_quota_bears_35_retries_that_do_not_help_and_100_of_a_service_that_throttles() -> None:
    assert burst(CONFIG, throttled=False) == 35
    assert burst(CONFIG, throttled=True) == 100


def test_a_retry_that_succeeds_gives_its_price_back_and_a_call_that_needs_none_gives_one_token() -> None:
    assert refunded(CONFIG, 100, 14) == 114
    assert refunded(CONFIG, 100, 0) == 101


@given(tokens=st.integers(0, 500), spent=st.sampled_from([0, 5, 14]))
def test_a_refund_never_exceeds_the_quota(tokens: int, spent: int) -> None:
    assert tokens <= refunded(CONFIG, tokens, spent) <= CONFIG.quota


def test_a_quiet_service_has_the_reserve() -> None:
    granted = [retries for retries in range(30) if affordable(CONFIG, 1 + retries, retries)]
    assert granted == list(range(10))


@given(
    calls=st.integers(0, 100_000),
    config=st.builds(BudgetConfig, ratio=st.floats(0, 2), reserve=st.integers(0, 50)),
)
def test_retries_never_exceed_their_share_of_the_calls_and_the_reserve(calls: int, config: BudgetConfig) -> None:
    retries = 0
    while retries < 10_000 and affordable(config, calls + retries, retries):
        retries += 1
    assert retries <= (config.ratio + 0.0005) * calls + config.reserve
    assert retries == 10_000 or retries + 1 > (config.ratio - 0.0005) * calls + config.reserve


@given(calls=st.integers(100, 100_000))
def test_from_ten_calls_a_second_on_a_dead_service_is_offered_at_most_a_fifth_more(calls: int) -> None:
    retries = CONFIG.reserve + calls // 10
    assert not affordable(CONFIG, calls + retries, retries)
    assert calls + retries <= 1.2 * calls


@pytest.mark.parametrize(
    ("field", "value"),
    [("ratio", -0.1), ("ratio", 1001.0), ("reserve", -1), ("cost", 0), ("cost", 501), ("throttled_cost", 15)],
)
def test_a_number_that_makes_no_sense_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        BudgetConfig(**{field: value})  # type: ignore[arg-type] # one field at a time, by name
