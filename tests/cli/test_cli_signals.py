import signal

import pytest

from bridge_tasks.cli.signals import as_ctrl_c, interruption, signals_held


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


def test_a_signal_to_end_interrupts_as_ctrl_c_does_and_is_known_by_its_status() -> None:
    with as_ctrl_c():
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            with pytest.raises(KeyboardInterrupt) as interrupted:
                signal.raise_signal(number)
            assert interruption(interrupted.value) == status
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_to_end_that_nobody_takes_ends_with_its_status() -> None:
    with pytest.raises(SystemExit) as left, as_ctrl_c():
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 143


def test_a_hangup_that_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with as_ctrl_c():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
