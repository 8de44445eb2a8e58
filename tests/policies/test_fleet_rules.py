"""What the fleet knows of one service, told piece by piece: no clock, no store."""

from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.fleet import (
    FULL_PACE,
    LONGEST_HOLD,
    SECOND,
    SLOWEST_PACE,
    Fleet,
    News,
    Pulse,
    pulse,
)

NOW = 1_790_000_000 * SECOND
CONFIG = BudgetConfig(ratio=0.1, reserve=2)


def told(*pieces: tuple[int, News], fleet: Fleet | None = None) -> tuple[Fleet, list[Pulse]]:
    """Tell pieces of news, each at its time after NOW."""
    fleet = fleet or Fleet()
    answers = []
    for after, news in pieces:
        fleet, answer = pulse(fleet, CONFIG, news, NOW + after)
        answers.append(answer)
    return fleet, answers


def test_to_tell_nothing_of_a_service_that_is_well_changes_nothing() -> None:
    _, answers = told((0, News()), (SECOND, News(tries=100)), (2 * SECOND, News()))
    assert answers == [Pulse(), Pulse(), Pulse()]


def test_retries_are_granted_up_to_their_share_of_all_that_was_told() -> None:
    asking = [(0, News(tries=1, wants_retry=True))] * 5
    _, answers = told((0, News(tries=20)), *asking)
    # 20 calls and 5 tries more bear 2 + 2 retries; a try that was a retry is no call.
    assert [answer.granted for answer in answers[1:]] == [True, True, True, True, False]


def test_what_happened_ten_seconds_ago_no_longer_counts() -> None:
    wants = News(wants_retry=True)
    _, answers = told((0, wants), (0, wants), (9 * SECOND, wants), (10 * SECOND, wants))
    assert [answer.granted for answer in answers] == [True, True, False, True]


def test_a_hold_is_heard_by_everybody_until_it_is_over() -> None:
    _, answers = told(
        (0, News(hold=7 * SECOND)), (SECOND, News()), (2 * SECOND, News(hold=SECOND)), (7 * SECOND, News())
    )
    assert [answer.hold for answer in answers] == [7 * SECOND, 6 * SECOND, 5 * SECOND, 0]


def test_a_pace_falls_once_per_complaint_and_comes_back_in_a_straight_line() -> None:
    throttled = News(throttled=True)
    _, answers = told(
        (0, throttled),
        (SECOND // 2, throttled),
        (SECOND, News()),
        (2 * SECOND, throttled),
        (12 * SECOND, News()),
    )
    assert [answer.pace for answer in answers] == [700, 725, 750, 560, FULL_PACE]


def test_a_service_that_never_stops_throttling_is_asked_now_and_then_all_the_same() -> None:
    _, answers = told(*((second * SECOND, News(throttled=True)) for second in range(60)))
    assert min(answer.pace for answer in answers) >= SLOWEST_PACE
    assert answers[-1].pace < FULL_PACE // 5


@given(
    steps=st.lists(
        st.tuples(
            st.integers(-10 * 86_400 * SECOND, 10 * 86_400 * SECOND) | st.integers(0, 2 * SECOND),
            st.builds(
                News,
                tries=st.integers(0, 50),
                wants_retry=st.booleans(),
                hold=st.sampled_from([0, 0, 1, 5 * SECOND, LONGEST_HOLD, 10 * LONGEST_HOLD]),
                throttled=st.booleans(),
            ),
        ),
        max_size=50,
    )
)
def test_whatever_the_clock_does_nobody_is_held_longer_than_a_minute_nor_slowed_for_good(
    steps: list[tuple[int, News]],
) -> None:
    fleet, now = Fleet(), NOW
    for step, news in steps:
        now += step
        fleet, answer = pulse(fleet, CONFIG, news, now)
        assert 0 <= answer.hold <= LONGEST_HOLD
        assert SLOWEST_PACE <= answer.pace <= FULL_PACE
        assert len(fleet.seconds) <= 10
    _, healed = pulse(fleet, CONFIG, News(), now + LONGEST_HOLD)
    assert (healed.hold, healed.pace) == (0, FULL_PACE)
