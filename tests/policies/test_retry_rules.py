"""When another try follows, and after how long: no clock, no chance, only arithmetic."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.resilience.policy.retry import LONGEST_HINT, RetryConfig, backoff, pause, retry_after

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
CONFIG = RetryConfig(attempts=4, initial=0.5, maximum=10.0)

chances = st.floats(0, 1, exclude_max=True)
configs = st.builds(
    RetryConfig, attempts=st.integers(1, 50), initial=st.floats(0, 10), maximum=st.floats(10, 1000)
)


@given(config=configs, attempt=st.integers(1, 10_000), chance=chances)
def test_a_backoff_lies_between_half_its_ceiling_and_its_ceiling(
    config: RetryConfig, attempt: int, chance: float
) -> None:
    ceiling = backoff(config, attempt, 1.0)
    assert ceiling / 2 <= backoff(config, attempt, chance) <= ceiling <= config.maximum


def test_the_ceiling_doubles_with_each_try_up_to_the_maximum() -> None:
    assert [backoff(CONFIG, attempt, 1.0) for attempt in range(1, 8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


@given(config=configs, chances=st.lists(chances, min_size=50, max_size=50))
def test_all_pauses_together_fit_into_the_longest(config: RetryConfig, chances: list[float]) -> None:
    pauses = [backoff(config, attempt, chances[attempt]) for attempt in range(1, config.attempts)]
    assert sum(pauses) <= config.longest + 1e-9


@pytest.mark.parametrize(("attempt", "again"), [(1, True), (3, True), (4, False), (5, False)])
def test_attempts_are_tries_in_total(attempt: int, again: bool) -> None:
    assert (pause(CONFIG, attempt, 0.0, remaining=1000.0, hint=None) is not None) is again


@given(chance=chances, hint=st.floats(0, LONGEST_HINT), remaining=st.floats(0, 10_000))
def test_a_pause_honours_the_hint_in_full_and_fits_into_the_time_left(
    chance: float, hint: float, remaining: float
) -> None:
    wait = pause(CONFIG, 1, chance, remaining, hint)
    if wait is None:
        assert max(hint, backoff(CONFIG, 1, chance)) >= remaining
    else:
        assert hint <= wait < remaining


def test_a_hint_shorter_than_the_backoff_does_not_shorten_it() -> None:
    assert pause(CONFIG, 3, 0.0, remaining=100.0, hint=0.1) == 1.0


@given(chance=chances, hint=st.floats(0, LONGEST_HINT), patience=st.floats(0, LONGEST_HINT))
def test_a_hint_beyond_our_patience_ends_the_tries_and_a_backoff_of_our_own_never_does(
    chance: float, hint: float, patience: float
) -> None:
    config = RetryConfig(initial=5.0, patience=patience)
    assert (pause(config, 1, chance, 10_000.0, hint) is None) is (hint > patience)
    assert pause(config, 1, chance, 10_000.0, None) is not None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Sunday, 01-Mar-26 12:01:30 GMT", 90.0),
        ("Sun, 01 Mar 2026 13:01:30 +0100", 90.0),
        ("Sun, 01 Mar 2026 12:01:30 -0000", 90.0),
        (format_datetime(NOW - timedelta(days=400), usegmt=True), 0.0),
    ],
)
def test_seconds_and_http_dates_are_read(header: str, seconds: float) -> None:
    assert retry_after(header, NOW) == seconds


@pytest.mark.parametrize(
    "header",
    ["3601", "9" * 5000, format_datetime(NOW + timedelta(days=1), usegmt=True), "Fri, 31 Dec 9999 23:59:59 GMT"],
)
def test_more_than_an_hour_is_taken_as_an_hour(header: str) -> None:
    assert retry_after(header, NOW) == LONGEST_HINT


@pytest.mark.parametrize(
    "header",
    [None, "", "soon", "-5", "1.5", "1e3", "NaN", "٣", "Mon, 99 Feb 2026 25:61:61 GMT", "1 Jan 2026 +9999", 7],
)
def test_anything_else_is_no_hint(header: object) -> None:
    assert retry_after(header, NOW) is None  # type: ignore[arg-type] # a mocked header may be anything


@given(st.text() | st.from_regex(r"\A[ A-Za-z0-9,:+-]{0,40}\Z"))
def test_no_text_breaks_the_parser(text: str) -> None:
    hint = retry_after(text, NOW)
    assert hint is None or 0 <= hint <= LONGEST_HINT


@given(st.datetimes(timezones=st.just(UTC)))
def test_any_moment_makes_a_hint_within_bounds(moment: datetime) -> None:
    hint = retry_after(format_datetime(moment, usegmt=True), NOW)
    assert hint is not None
    assert 0 <= hint <= LONGEST_HINT


@pytest.mark.parametrize(
    ("field", "value"),
    [("attempts", 0), ("initial", -1.0), ("initial", 11.0), ("maximum", 0.1), ("patience", -1.0)],
)
def test_a_number_that_makes_no_sense_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"attempts|initial|patience"):
        RetryConfig(**{"attempts": 3, field: value})  # type: ignore[arg-type] # one field at a time, by name
