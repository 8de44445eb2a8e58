"""Signals that end a command which has things to tidy up. Only for the main thread of a process that is ours."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EXIT = 128
"""A process that a signal ends exits with this and the signal's number."""


def end_on_signals() -> None:
    """From now on, let Ctrl-C, SIGTERM and SIGHUP unwind the stack: `finally` blocks run, then the process ends.

    Also where the shell that started us in the background had Ctrl-C ignored. A SIGHUP ignored by nohup stays so.
    """
    for number in _ENDING:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


class ToldToEnd(KeyboardInterrupt):
    """SIGTERM or SIGHUP came, and is to interrupt as Ctrl-C does.

    Args:
        status: what the process exits with.
    """

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt a `with` block as Ctrl-C does; what it does not take ends the process.

    A SIGHUP ignored by nohup stays so.
    """
    numbers = [number for number in _ENDING[1:] if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    except ToldToEnd as told:
        sys.exit(told.status)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def interruption(error: KeyboardInterrupt) -> int:
    """Return the exit status of what was interrupted."""
    return error.status if isinstance(error, ToldToEnd) else _EXIT + signal.SIGINT


@contextmanager
def signals_held() -> Iterator[None]:
    """Let signals wait for the end of a `with` block that forks: what they raise in a fork's hooks is lost."""
    arrived: list[int] = []
    handlers = {number: signal.signal(number, lambda which, _: arrived.append(which)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for first in arrived[:1]:
            signal.raise_signal(first)


def ignore_signals() -> None:
    """Let nothing interrupt what follows: it tidies up, and takes seconds at most."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _frame: FrameType | None) -> None:
    ignore_signals()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(_EXIT + number)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise ToldToEnd(_EXIT + number)
