"""The cache's rules: how answers age, and who asks anew."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.resilience.policy.caching import (
    EVERYTHING,
    Age,
    CacheRules,
    Lease,
    Life,
    Verdict,
    decide,
    early_draw,
    judge,
    mark_of_prefix,
    mark_of_tag,
    voided_at,
)

LIFE = Life(fresh=60.0, usable=80.0, kept=100.0, cost=2.0)
seconds = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (0.0, Age.FRESH),
        (60.0, Age.FRESH),
        (60.1, Age.STALE),
        (80.0, Age.STALE),
        (80.1, Age.RESERVE),
        (100.0, Age.RESERVE),
        (100.1, Age.GONE),
    ],
)
def test_an_answer_ages_in_steps(age: float, expected: Age) -> None:
    assert judge(LIFE, age, 0.0) is expected


def test_a_refresh_is_due_as_many_costs_ahead_as_were_drawn() -> None:
    assert judge(LIFE, 55.9, 2.0) is Age.FRESH
    assert judge(LIFE, 56.1, 2.0) is Age.EARLY


@given(a=seconds, b=seconds, draw=st.floats(0, 50))
def test_no_answer_grows_younger(a: float, b: float, draw: float) -> None:
    younger, older = sorted((a, b))
    assert judge(LIFE, younger, draw) <= judge(LIFE, older, draw)


@pytest.mark.parametrize(
    ("age", "lease", "waiting", "expected"),
    [
        (Age.FRESH, Lease.FREE, False, Verdict.SERVE),
        (Age.FRESH, Lease.FAILED, True, Verdict.SERVE),
        (Age.EARLY, Lease.FREE, False, Verdict.FILL),
        (Age.EARLY, Lease.HELD, False, Verdict.SERVE),
        (Age.STALE, Lease.FREE, True, Verdict.FILL),
        (Age.STALE, Lease.HELD, False, Verdict.SERVE),
        (Age.STALE, Lease.FAILED, False, Verdict.SERVE),
        (Age.RESERVE, Lease.FREE, False, Verdict.FILL),
        (Age.RESERVE, Lease.HELD, True, Verdict.WAIT),
        (Age.RESERVE, Lease.FAILED, False, Verdict.SERVE),
        (Age.GONE, Lease.FREE, True, Verdict.FILL),
        (Age.GONE, Lease.HELD, False, Verdict.WAIT),
        (Age.GONE, Lease.FAILED, False, Verdict.FILL),
        (Age.GONE, Lease.FAILED, True, Verdict.FAILED),
    ],
)
def test_what_a_caller_does(age: Age, lease: Lease, waiting: bool, expected: Verdict) -> None:
    assert decide(age, lease, waiting=waiting) is expected


@given(age=st.sampled_from(Age), waiting=st.booleans())
def test_nobody_asks_while_somebody_else_holds_the_lease(age: Age, waiting: bool) -> None:
    assert decide(age, Lease.HELD, waiting=waiting) is not Verdict.FILL


@given(age=st.sampled_from([Age.FRESH, Age.EARLY, Age.STALE]), lease=st.sampled_from(Lease), waiting=st.booleans())
def test_nobody_waits_for_what_can_be_served(age: Age, lease: Lease, waiting: bool) -> None:
    assert decide(age, lease, waiting=waiting) in (Verdict.SERVE, Verdict.FILL)


def test_draws_are_exponential() -> None:
    assert early_draw(1.0, 0.0) == 0.0
    assert early_draw(1.0, 0.5) == pytest.approx(0.693, abs=0.001)
    assert early_draw(2.0, 0.5) == pytest.approx(1.386, abs=0.001)
    assert early_draw(0.0, 0.999) == 0.0


def test_lives_follow_from_the_rules() -> None:
    rules = CacheRules(stale_while_revalidate=10, stale_if_error=5, negative_ttl=3)
    assert rules.life(60) == Life(60, 70, 70), "what may be served is kept for as long"
    assert CacheRules().life(300) == Life(300, 360, 3900)
    assert rules.refusal_life == Life(3, 3, 3)


def test_marks_meet_what_they_name() -> None:
    marks = {mark_of_tag("a"): 1.0, mark_of_prefix("src/"): 2.0}
    assert voided_at(marks, "src/x", ("a",)) == 2.0
    assert voided_at(marks, "x", ("a", "b")) == 1.0
    assert voided_at(marks, "a", ("b",)) == -inf
    assert voided_at({EVERYTHING: 3.0}, "", ()) == 3.0
    assert voided_at({}, "x", ("a",)) == -inf
