"""A thread of a worker's main process that has a turn with each beat, and looks now and then, one worker of all.

What is done then is for those who are made of it: `Reconciler`, `Relay`. It must never let an error out of the
thread: without it nobody would notice what is lost, and what waits for its time would wait for ever.
"""

import logging
import math
import threading
from abc import ABC, abstractmethod
from typing import ClassVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from bridge_tasks.driver import BlockingRedis
from bridge_tasks.places import Place
from bridge_tasks.settings import LedgerSettings

_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Lookout(ABC):
    """The thread, and the lease under which it looks.

    Args:
        place: the Redis with the ledger.
        settings: how often.
        name: this worker's.
    """

    LEASE: ClassVar[str]
    """The key of whoever looks."""
    LEAVE_SECONDS: ClassVar[float] = 2.0
    """For what is under way to end."""
    EXPECTED: ClassVar[tuple[type[Exception], ...]] = ()
    """Errors, beside Redis's, of something that is away: they come again, and are nobody's fault."""

    def __init__(self, place: Place, settings: LedgerSettings, name: str) -> None:
        self._client = place.client(
            retry=Retry(NoBackoff(), 0), socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS
        )
        self._commands = BlockingRedis(self._client)
        self._settings = settings
        self._name = name
        # A look follows a beat: where looks are set closer together, they are as far apart as those.
        self._apart = math.ceil(settings.look_seconds / settings.beat_seconds) * settings.beat_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.LEASE.replace(":", "-"), daemon=True)

    @abstractmethod
    def turn(self) -> None:
        """Do what every worker does with each beat."""

    @abstractmethod
    def look(self) -> None:
        """Do what one worker of all does."""

    @abstractmethod
    def forget_evidence(self) -> None:
        """Forget what was seen in looks before: somebody else may have looked since, or nobody could."""

    def hang_up(self) -> None:  # noqa: B027 - not everybody has something to close
        """Close what is broken, so that it is opened anew."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and close the connections."""
        self.end()
        self.stop_client()

    def end(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join(self.LEAVE_SECONDS)

    def stop_client(self) -> None:
        """Close the connections."""
        self.hang_up()
        self._client.close()

    def leads(self) -> bool:
        """Say whether it is this worker that looks, for two looks' time.

        The lease outlasts the pause between two looks: who finds it gone must take it that somebody else looked
        meanwhile, and what only was missing once is no evidence.
        """
        milliseconds = math.ceil(self._apart * 2000)
        if self._client.set(self.LEASE, self._name, nx=True, px=milliseconds):
            self.forget_evidence()
            return True
        held = self._client.get(self.LEASE)
        return held == self._name.encode() and bool(self._client.pexpire(self.LEASE, milliseconds))

    def _run(self) -> None:
        waited = 0.0
        while not self._stopped.wait(self._settings.beat_seconds):
            waited += self._settings.beat_seconds
            try:
                self.turn()
                if waited >= self._settings.look_seconds and self.leads():
                    waited = 0.0
                    self.look()
            except NoPermissionError as error:
                _log.warning("nothing can be looked for: %s (bridge-tasks check)", error)
            except redis.RedisError as error:
                self.forget_evidence()  # nobody can give a sign of life to a Redis that is away
                _log.debug("nothing could be looked for: %s", type(error).__name__)
            except self.EXPECTED as error:
                self.hang_up()
                _log.debug("nothing could be looked for: %s", type(error).__name__)
            except Exception:  # noqa: BLE001 - see above
                self.hang_up()
                _log.exception("a look for lost messages failed")
