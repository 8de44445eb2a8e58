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
