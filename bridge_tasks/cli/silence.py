"""What to say when nothing comes back: once, and only after somebody was asked. Decides no more than that."""

import math
import time
from collections.abc import Callable

import redis
from kombu.exceptions import OperationalError

from bridge_tasks.app import app

_NOBODY_SECONDS = 2.0
"""With workers at hand, the first result takes a fraction of this."""
_STUCK_SECONDS = 5.0
_PING_SECONDS = 1.0
_AWAY_SECONDS = 2.0
"""A Redis that is restarted is back sooner, mostly."""
_NOBODY = "No worker answers; start one with `bridge-tasks worker`. Waiting: the jobs stay in the queue."
_STUCK = (
    f"Nothing has come back for {_STUCK_SECONDS:.0f} s: jobs take long, wait, or are put back to be tried again. "
    "In another terminal, `bridge-tasks health` may tell why."
)
_AWAY = "Redis is out of reach: it is tried again and again. What was submitted goes on when it is back."
_BACK = "Redis answers again."


def somebody_works() -> bool:
    """Tell whether a worker answers; the first one is enough."""
    return bool(app.control.ping(timeout=_PING_SECONDS, limit=1))


class Silence:
    """Watches the results that come in, and warns where they do not.

    Args:
        warn: told what to say: each thing once, but of Redis whenever it goes away.
        answers: tells whether a worker is there.
        clock: seconds.
    """

    def __init__(
        self,
        warn: Callable[[str], None],
        answers: Callable[[], bool] = somebody_works,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._warn = warn
        self._answers = answers
        self._clock = clock
        self._since = clock()
        self._patience = _NOBODY_SECONDS
        self._known: set[str] = set()
        self._away_since: float | None = None
        self._away_told = False

    def heard(self, results: int, *, known: str = "") -> None:
        """Take note of how many results came since the last call.

        Args:
            results: the number.
            known: why no more come, where that is known; then nobody is asked.
        """
        self._back()
        if results:
            self._since = self._clock()
        elif known:
            self._tell(known)
        elif self._clock() - self._since >= self._patience:
            self._ask()

    def away(self) -> None:
        """Take note that Redis was tried, and is out of reach."""
        now = self._clock()
        if self._away_since is None:
            self._away_since = now
        elif not self._away_told and now - self._away_since >= _AWAY_SECONDS:
            self._away_told = True
            self._warn(_AWAY)

    def _back(self) -> None:
        """Redis answers. The time it was away is no silence of workers."""
        if self._away_since is None:
            return
        told, self._away_told, self._away_since = self._away_told, False, None
        self._since = self._clock()
        if told:
            self._warn(_BACK)

    def _tell(self, known: str) -> None:
        if known not in self._known and self._clock() - self._since >= _STUCK_SECONDS:
            self._known.add(known)
            self._warn(known)

    def _ask(self) -> None:
        try:
            answered = self._answers()
        except (OperationalError, redis.RedisError):
            return  # Redis went away just now: the next look finds that out
        if not answered:
            self._say(_NOBODY)
        elif self._patience < _STUCK_SECONDS:
            self._patience = _STUCK_SECONDS
        else:
            self._say(_STUCK)

    def _say(self, warning: str) -> None:
        self._warn(warning)
        self._patience = math.inf
