"""Have workers do one job per file, and know of each file what became of it.

Sends while it collects: a bounded number of jobs is outstanding, however many files there are.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from celery.canvas import Signature

from bridge_tasks.bridge import Bridge, Job
from bridge_tasks.cli.roots import why_refused
from bridge_tasks.cli.silence import Silence
from bridge_tasks.errors import BridgeError, InvalidRequest

_OUTSTANDING = 200
"""Keeps many workers busy between two polls, and is asked for in one round trip."""
_SENDING_SECONDS = 0.2
"""How long jobs are sent before results are looked at."""
_ABOUT_THE_FILE = ("content", "file_path")

NOT_SENT = "not sent"
SENDING = "stopped while it was sent; it may go on"
SENT = "sent, not ended: it goes on"

State = Literal["done", "failed", "refused", "unfinished"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one file: a `result` when it is done, else an `error`.

    `refused`: it was never sent. `unfinished`: nobody waited for its end; `error` says whether it was sent.
    """

    path: Path
    state: State
    result: Any = None
    error: str | None = None


class FileJobs:
    """The jobs of a number of files.

    Args:
        paths: the files.
        build: makes a file's job; what it refuses is answered so, and the others go on.

    Attributes:
        answers: one per file, in the order of the files, as far as is known.
    """

    def __init__(self, paths: Iterable[Path], build: Callable[[Path], Signature[Any]]) -> None:
        self.answers = {path: Answer(path, "unfinished", error=NOT_SENT) for path in paths}
        self._build = build
        self._bridge = Bridge()
        self._unsent = list(reversed(self.answers))
        self._waiting: dict[str, tuple[Path, Job]] = {}

    def run(self, *, timeout: float | None = None, warn: Callable[[str], None]) -> Iterator[int]:
        """Send and collect until all have ended; gives now and then the number of files that ended since.

        Args:
            timeout: seconds for all; None waits for ever. What has not ended then stays unfinished.
            warn: told, once, when nothing comes back.

        Raises:
            InvalidRequest: what `build` refuses is no fault of the file.
            OperationalError: the broker is out of reach.
        """
        ends = math.inf if timeout is None else time.monotonic() + timeout
        silence = Silence(warn)
        while self._unsent or self._waiting:
            late = time.monotonic() >= ends
            ended = self.collect() if late else self._send(ends) + self.collect()
            yield ended
            if late:
                return
            silence.heard(ended)

    def collect(self) -> int:
        """Take in what has ended by now, and return how many; waits a moment where not everything has."""
        before = len(self._waiting)
        try:
            for outcome in self._bridge.as_completed([job for _, job in self._waiting.values()], timeout=0):
                path, _ = self._waiting[outcome.job.id]
                error = outcome.error
                self.answers[path] = (
                    Answer(path, "done", result=outcome.result)
                    if error is None
                    else Answer(path, "failed", error=_told(error))
                )
                del self._waiting[outcome.job.id]
        except TimeoutError:
            pass
        return before - len(self._waiting)

    def _send(self, ends: float) -> int:
        """Send some, and return how many were refused."""
        refused = 0
        until = min(ends, time.monotonic() + _SENDING_SECONDS)
        while self._unsent and len(self._waiting) < _OUTSTANDING and time.monotonic() < until:
            path = self._unsent.pop()
            try:
                job = self._build(path)
            except InvalidRequest as error:
                if error.field.partition(".")[0] not in _ABOUT_THE_FILE:
                    raise  # an option is wrong, so every file is refused and nothing was sent
                self.answers[path] = Answer(path, "refused", error=why_refused(error, path))
                refused += 1
                continue
            self.answers[path] = Answer(path, "unfinished", error=SENDING)  # Ctrl-C may come in the midst of it
            sent = self._bridge.submit(job)
            self._waiting[sent.id] = path, sent
            self.answers[path] = Answer(path, "unfinished", error=SENT)
        return refused


def _told(error: Exception) -> str:
    """Our own errors are made to be shown; of any other only its name is."""
    return str(error) if isinstance(error, BridgeError) else type(error).__name__
