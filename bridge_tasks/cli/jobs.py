"""Have workers do one job per file, and tell what became of each, as it comes."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from celery.canvas import Signature

from bridge_tasks.app import app
from bridge_tasks.bridge import Bridge, Job, Outcome
from bridge_tasks.errors import BridgeError, InvalidRequest

_SILENCE_SECONDS = 2.0
"""With workers at hand, the first result takes a fraction of this."""
_PING_SECONDS = 1.0
_NOBODY = "No worker answers; start one with `bridge-tasks worker`. Waiting: the jobs stay in the queue."
_ABOUT_THE_FILE = ("content", "file_path")

State = Literal["done", "failed", "refused", "unfinished"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one file: a `result` when it is done, else an `error`.

    `refused`: it was never sent. `unfinished`: nobody waited for its end; if it was sent, it goes on.
    """

    path: Path
    state: State
    result: Any = None
    error: str | None = None


def run_jobs(
    paths: Sequence[Path],
    build: Callable[[Path], Signature[Any]],
    *,
    timeout: float | None = None,
    warn: Callable[[str], None],
) -> Iterator[Answer]:
    """Send a job per file and say so (`unfinished`, or `refused`), then give the answers as they come.

    Args:
        paths: the files.
        build: makes a file's job; what it refuses is answered so, and the others go on.
        timeout: seconds for all; None waits for ever. What has not ended then stays unfinished.
        warn: told, once, when nothing comes back because no worker is there.

    Raises:
        InvalidRequest: what `build` refuses is no fault of the file.
        OperationalError: the broker is out of reach.
    """
    ends = None if timeout is None else time.monotonic() + timeout
    bridge = Bridge()
    sent: dict[str, Path] = {}
    jobs: list[Job] = []
    for path in paths:
        try:
            job = bridge.submit(build(path))
        except InvalidRequest as error:
            if error.field.partition(".")[0] not in _ABOUT_THE_FILE:
                raise  # an option is wrong, so every file is refused and nothing was sent
            yield Answer(path, "refused", error=str(error))
        else:
            sent[job.id] = path
            jobs.append(job)
            yield Answer(path, "unfinished", error="had not ended yet; the job goes on")
    for outcome in _outcomes(bridge, jobs, ends, warn):
        path = sent[outcome.job.id]
        if outcome.error is None:
            yield Answer(path, "done", result=outcome.result)
        else:
            yield Answer(path, "failed", error=_told(outcome.error))


def _outcomes(
    bridge: Bridge, jobs: Sequence[Job], ends: float | None, warn: Callable[[str], None]
) -> Iterator[Outcome]:
    waiting = {job.id: job for job in jobs}
    silent = True
    while waiting:
        left = _SILENCE_SECONDS if ends is None else min(_SILENCE_SECONDS, ends - time.monotonic())
        try:
            for outcome in bridge.as_completed(list(waiting.values()), max(left, 0.0)):
                silent = False
                del waiting[outcome.job.id]
                yield outcome
        except TimeoutError:
            if ends is not None and time.monotonic() >= ends:
                return
            if silent and not app.control.ping(timeout=_PING_SECONDS):
                warn(_NOBODY)
            silent = False


def _told(error: Exception) -> str:
    """Our own errors are made to be shown; of any other only its name is."""
    return str(error) if isinstance(error, BridgeError) else type(error).__name__
