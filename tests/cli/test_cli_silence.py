import redis

from bridge_tasks.cli.silence import Silence
from tests.stopped_clock import StoppedClock


def heard_after(seconds: list[float], *, workers: bool, clock: StoppedClock, results: int = 0) -> list[str]:
    """What is said when nothing, or something, comes in at these steps."""
    said: list[str] = []
    silence = Silence(said.append, lambda: workers, clock)
    for step in seconds:
        clock.advance(step)
        silence.heard(results)
    return said


def test_where_nobody_works_it_is_said_once_and_soon(clock: StoppedClock) -> None:
    assert not heard_after([1.9], workers=False, clock=clock)
    (said,) = heard_after([2.0, 3.0, 60.0], workers=False, clock=clock)
    assert said.startswith("No worker answers")


def test_where_workers_answer_and_nothing_comes_back_it_is_said_once_after_a_while(clock: StoppedClock) -> None:
    assert not heard_after([2.5, 2.4], workers=True, clock=clock)
    (said,) = heard_after([2.5, 2.5, 60.0], workers=True, clock=clock)
    assert "`bridge-tasks health`" in said


def test_where_results_come_in_nothing_is_said(clock: StoppedClock) -> None:
    assert not heard_after([4.9] * 10, workers=False, clock=clock, results=1)


def test_where_the_reason_is_known_it_is_said_after_a_while_and_nobody_is_asked(clock: StoppedClock) -> None:
    said: list[str] = []

    def asked() -> bool:
        said.append("asked")
        return True

    silence = Silence(said.append, asked, clock)
    for step in (4.9, 0.1, 60.0):
        clock.advance(step)
        silence.heard(0, known="Whoever submits it may be gone.")
    assert said == ["Whoever submits it may be gone."]


def test_a_redis_that_is_away_is_told_of_soon_and_so_is_its_return(clock: StoppedClock) -> None:
    said: list[str] = []
    silence = Silence(said.append, lambda: True, clock)
    for _ in range(2):
        said.clear()
        silence.away()
        clock.advance(1.9)
        silence.away()
        assert not said
        for step in (0.1, 60.0):
            clock.advance(step)
            silence.away()
        (gone,) = said
        assert gone.startswith("Redis is out of reach")
        silence.heard(0)
        assert said[1:] == ["Redis answers again."]
        clock.advance(1.9)
        silence.heard(0)
        assert len(said) == 2, "what was away for long is no reason to ask for workers at once"


def test_a_redis_that_is_soon_back_is_not_worth_a_word(clock: StoppedClock) -> None:
    said: list[str] = []
    silence = Silence(said.append, lambda: True, clock)
    for _ in range(3):
        silence.away()
        clock.advance(1.9)
        silence.away()
        silence.heard(1)
    assert not said


def test_a_redis_that_goes_away_while_workers_are_asked_for_says_nothing_of_them(clock: StoppedClock) -> None:
    said: list[str] = []

    def gone() -> bool:
        raise redis.ConnectionError("gone")

    silence = Silence(said.append, gone, clock)
    clock.advance(60.0)
    silence.heard(0)
    assert not said
