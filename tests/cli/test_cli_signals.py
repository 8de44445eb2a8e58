import signal

import pytest

from bridge_tasks.cli.signals import signals_held


def interrupted_midway(passed: list[str]) -> None:
    with signals_held():
        signal.raise_signal(signal.SIGINT)
        passed.append("the block went on")


def test_a_signal_that_comes_while_signals_are_held_is_delivered_at_the_end() -> None:
    passed: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted_midway(passed)
    assert passed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
