"""How many calls may go out, and when: one token after the other, in whole microseconds."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.resilience.policy.fleet import FULL_PACE, SECOND
from bridge_tasks.resilience.policy.limits import KEEP, MINUTE, Grant, LimitsConfig, Rate, rate, take

NOW = 1_790_000_000 * SECOND
DOCUMENTED = LimitsConfig(preset="documented")


@pytest.mark.parametrize(
    ("operation", "group", "per_minute"),
    [
        ("create_stamp", "standard", 1000),
        ("get_intelligence", "standard", 1000),
        ("batch_create_stamps", "batch", 100),
        ("generate_hash", "hash", 2000),
        ("health_check", "health", 100),
    ],
)
def test_the_preset_documented_is_the_contract_s(operation: str, group: str, per_minute: int) -> None:
    assert DOCUMENTED.group(operation) == group
    assert DOCUMENTED.rates[group] == per_minute


def test_nothing_is_limited_by_default() -> None:
    assert LimitsConfig().rates == {}
    assert LimitsConfig().group("generate_hash") is None


def test_a_number_of_one_s_own_wins_and_an_operation_may_have_one_for_itself() -> None:
    config = LimitsConfig(preset="documented", per_minute={"batch": 10, "get_stamp": 5})
    assert config.rates["batch"] == 10
    assert config.group("get_stamp") == "get_stamp"
    assert config.group("validate_stamp") == "standard"


def test_an_operation_may_be_the_only_one_that_is_limited() -> None:
    config = LimitsConfig(per_minute={"get_stamp": 5})
    assert (config.group("get_stamp"), config.group("create_stamp")) == ("get_stamp", None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "none"},
        {"per_minute": {"hash": 0}},
        {"per_minute": {"ha}sh": 5}},
        {"max_wait": -1.0},
        {"max_wait": 61.0},
        {"max_concurrent": -1},
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LimitsConfig(**wrong)  # type: ignore[arg-type] # one field at a time, by name


@given(per_minute=st.integers(1, 1_000_000))
def test_a_minute_holds_no_more_than_the_limit_even_if_every_token_is_used_as_late_as_it_may_be(
    per_minute: int,
) -> None:
    wanted = rate(per_minute)
    # A bucket full at the start, and one more token for each interval in a minute and the time tokens keep.
    assert wanted.burst + (MINUTE + KEEP - 1) // wanted.interval <= per_minute


@given(per_minute=st.integers(60, 100_000))
def test_the_limit_is_used_well(per_minute: int) -> None:
    assert MINUTE / rate(per_minute).interval >= 0.95 * per_minute - 2


def test_a_full_bucket_gives_its_burst_at_once_and_then_says_when_the_next_token_comes() -> None:
    wanted = Rate(interval=1000, burst=3)
    full_at, grant = take(0, wanted, FULL_PACE, 5, 0, NOW)
    assert grant == Grant(3)
    assert take(full_at, wanted, FULL_PACE, 1, 0, NOW) == (full_at, Grant(0, 1000))
    assert take(full_at, wanted, FULL_PACE, 1, 0, NOW + 400) == (full_at, Grant(0, 600))
    assert take(full_at, wanted, FULL_PACE, 1, 0, NOW + 1000)[1] == Grant(1)


def test_who_is_patient_gets_a_place_in_line_and_the_next_one_stands_behind() -> None:
    wanted = Rate(interval=1000, burst=1)
    full_at, _ = take(0, wanted, FULL_PACE, 1, 0, NOW)
    full_at, second = take(full_at, wanted, FULL_PACE, 4, 2000, NOW)
    full_at, third = take(full_at, wanted, FULL_PACE, 4, 2000, NOW)
    full_at, fourth = take(full_at, wanted, FULL_PACE, 4, 2000, NOW)
    assert (second, third, fourth) == (Grant(1, 1000), Grant(1, 2000), Grant(0, 3000))


def test_half_the_pace_takes_twice_the_time() -> None:
    wanted = Rate(interval=1000, burst=1)
    full_at, _ = take(0, wanted, FULL_PACE // 2, 1, 0, NOW)
    assert take(full_at, wanted, FULL_PACE // 2, 1, 0, NOW)[1] == Grant(0, 2000)


def test_a_clock_that_steps_back_by_a_year_costs_one_bucket_at_most() -> None:
    wanted = Rate(interval=1000, burst=3)
    full_at, _ = take(0, wanted, FULL_PACE, 3, 0, NOW)
    before = NOW - 365 * 86_400 * SECOND
    full_at, grant = take(full_at, wanted, FULL_PACE, 1, 0, before)
    assert grant == Grant(0, 1000)
    assert take(full_at, wanted, FULL_PACE, 1, 0, before + 1000)[1] == Grant(1)


@given(
    per_minute=st.integers(1, 400),
    gaps=st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=300),
    wants=st.lists(st.integers(1, 8), min_size=1),
    patience=st.integers(0, SECOND),
)
def test_whatever_is_asked_no_minute_sees_more_than_the_limit(
    per_minute: int, gaps: list[int], wants: list[int], patience: int
) -> None:
    wanted = rate(per_minute)
    used: deque[int] = deque()
    full_at, now = 0, NOW
    for number, gap in enumerate(gaps):
        now += gap
        full_at, grant = take(full_at, wanted, FULL_PACE, wants[number % len(wants)], patience, now)
        # The worst user: one token at once, the rest of the block at the last moment.
        used.extend(now + grant.wait + (KEEP if token else 0) for token in range(grant.tokens))
    moments = sorted(used)
    for first, moment in enumerate(moments):
        assert (
            sum(moment <= later < moment + MINUTE for later in moments[first : first + per_minute + 1])
            <= per_minute
        )
