"""Signals that end a command which has things to tidy up. Only for the main thread of a process that is ours."""

import signal
import sys
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals() -> None:
    """From now on, let Ctrl-C, SIGTERM and SIGHUP unwind the stack: `finally` blocks run, then the process ends.

    Also where the shell that started us in the background had Ctrl-C ignored. A SIGHUP ignored by nohup stays so.
    """
    for number in _ENDING:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def ignore_signals() -> None:
    """Let nothing interrupt what follows: it tidies up, and takes seconds at most."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _frame: FrameType | None) -> None:
    ignore_signals()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
