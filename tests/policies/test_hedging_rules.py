"""When a second request is sent beside a slow first one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.resilience.policy.hedging import BURST, ENOUGH, KEPT, HedgingConfig, Pace, begin, finish, spend

PERCENTILE = HedgingConfig(enabled=True)
FIXED = HedgingConfig(enabled=True, delay=0.2)


def paced(*durations: float) -> Pace:
    pace = Pace()
    for seconds in durations:
        pace = finish(pace, seconds)
    return pace


def test_a_fixed_delay_holds_from_the_first_call() -> None:
    assert begin(Pace(), FIXED)[1] == 0.2


def test_a_percentile_needs_some_calls() -> None:
    assert begin(paced(*[0.1] * (ENOUGH - 1)), PERCENTILE)[1] is None
    assert begin(paced(*[0.1] * ENOUGH), PERCENTILE)[1] == 0.1


def test_one_call_in_twenty_takes_longer_than_the_delay() -> None:
    _, after = begin(paced(*[number / 100 for number in range(100)]), PERCENTILE)
    assert after == 0.95


def test_only_the_last_hundred_calls_count() -> None:
    pace = paced(*[9.0] * 500, *[0.1] * KEPT)
    assert len(pace.durations) == KEPT
    assert begin(pace, PERCENTILE)[1] == 0.1


@given(calls=st.integers(0, 500), share=st.floats(0.01, 1))
def test_hedges_are_a_share_of_the_calls_and_a_few_saved_up(calls: int, share: float) -> None:
    config, pace, hedges = HedgingConfig(enabled=True, delay=0.1, share=share), Pace(), 0
    for _ in range(calls):
        pace, _ = begin(pace, config)
        pace, allowed = spend(pace)
        hedges += allowed
    assert hedges <= BURST + share * calls
    assert hedges >= min(calls, int(BURST + share * calls) - 1) - 1


@pytest.mark.parametrize("wrong", [{"delay": -0.1}, {"share": 0.0}, {"share": 1.1}], ids=str)
def test_a_number_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HedgingConfig(**wrong)
