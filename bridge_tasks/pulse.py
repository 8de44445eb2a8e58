"""The pulse of a worker: what its process knows of itself, in a file, and what a probe on the same machine reads.

Nobody is asked over a network: an outage of Redis must not make a worker look dead. Imports nothing heavy, as a
probe runs every few seconds. Times are of the monotonic clock, which all processes of a machine share.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

SILENCE = 15.0
"""Seconds without a pulse after which a process is stopped or dead; it gives one every second."""

STUCK = 30.0
"""Seconds after which an event loop that did not turn does not turn any more, unless jobs run in it."""

UNHEARD = 10.0
"""Seconds without a word from the queues after which nobody hears: Redis answers each second, if with nothing."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a worker knows of itself.

    Attributes:
        beat: when this was noted.
        turned: when its event loop last turned.
        heard: when its queues last answered; None with a broker that does not tell.
        connected: whether it has a broker.
        leaving: whether it was told to end, and takes no more.
        reading: whether it reads any queue; one whose circuits are open, or that an operator told so, reads none.
        full: whether each slot has its job, so that nothing more is wanted.
        longest: seconds that a job may take.
    """

    beat: float
    turned: float
    heard: float | None
    connected: bool
    leaving: bool
    reading: bool
    full: bool
    longest: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a probe finds: whether the worker is `alive`, whether it is `consuming`, and why, for people."""

    alive: bool
    consuming: bool
    reason: str


_DEAD, _ALIVE, _CONSUMING = (False, False), (True, False), (True, True)


def diagnose(pulse: Pulse | None, now: float, *, silence: float = SILENCE) -> Diagnosis:
    """Say how a worker is. Pure.

    Args:
        pulse: its last one; None where there is none.
        now: the time of the same clock.
        silence: how old a pulse may be.
    """
    if pulse is None:
        return Diagnosis(*_DEAD, "no worker has given a pulse here")
    patience = max(STUCK, pulse.longest) if pulse.full else STUCK
    unheard = max(UNHEARD, pulse.longest) if pulse.full else UNHEARD
    signs = (
        (not 0 <= now - pulse.beat <= silence, _DEAD, "no pulse for too long: it is stopped, or dead"),
        (pulse.leaving, _ALIVE, "it ends what it has, and takes no more"),
        (not pulse.connected, _ALIVE, "it has no connection to its broker"),
        (now - pulse.turned > patience, _DEAD, "its event loop does not turn any more"),
        (not pulse.reading, _CONSUMING, "all its queues are paused"),
        (pulse.heard is not None and now - pulse.heard > unheard, _ALIVE, "it does not hear from its queues"),
        (pulse.full, _CONSUMING, "all its slots are taken"),
    )
    return next(
        (Diagnosis(*state, reason) for holds, state, reason in signs if holds),
        Diagnosis(*_CONSUMING, "it waits for jobs"),
    )


def write(path: Path, pulse: Pulse) -> None:
    """Put a pulse into a file, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(pulse), file)
    fresh.replace(path)


def read(path: Path) -> Pulse | None:
    """Return the pulse in a file; None where there is none."""
    try:
        return Pulse(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
