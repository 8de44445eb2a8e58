"""What to say when nothing comes back: once, and only after somebody was asked. Decides no more than that."""

import math
import time
from collections.abc import Callable

from bridge_tasks.app import app

_NOBODY_SECONDS = 2.0
"""With workers at hand, the first result takes a fraction of this."""
_STUCK_SECONDS = 5.0
_PING_SECONDS = 1.0
_NOBODY = "No worker answers; start one with `bridge-tasks worker`. Waiting: the jobs stay in the queue."
_STUCK = (
    f"Nothing has come back for {_STUCK_SECONDS:.0f} s: jobs take long, wait, or are put back to be tried again. "
    "In another terminal, `bridge-tasks health` may tell why."
)


def somebody_works() -> bool:
    """Tell whether a worker answers; the first one is enough."""
    return bool(app.control.ping(timeout=_PING_SECONDS, limit=1))


class Silence:
    """Watches the results that come in, and warns where they do not.

    Args:
        warn: told what to say, once.
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

    def heard(self, results: int) -> None:
        """Take note of how many results came since the last call."""
        if results:
            self._since = self._clock()
        elif self._clock() - self._since >= self._patience:
            self._ask()

    def _ask(self) -> None:
        if not self._answers():
            self._say(_NOBODY)
        elif self._patience < _STUCK_SECONDS:
            self._patience = _STUCK_SECONDS
        else:
            self._say(_STUCK)

    def _say(self, warning: str) -> None:
        self._warn(warning)
        self._patience = math.inf
