"""Sends what is in the outbox and due: what its sender did not send, what waited for its time, what was put back.

Only where the broker is a RabbitMQ. A thread of each worker's main process; who takes a message from the outbox is
the only one who sends it for a while. It must never raise out of the thread, never wait in another thread's way,
and never take a message out of the outbox that RabbitMQ has not confirmed.
"""

import logging
import threading
from contextlib import suppress
from typing import Any

import amqp
import redis
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks import events
from bridge_tasks.app import app
from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.ledger import JobLedger, keys
from bridge_tasks.ledger.dead import queue_of
from bridge_tasks.ledger.outbox import Outbox, Unsent
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.places import Place
from bridge_tasks.settings import LedgerSettings

AWAY = (amqp.exceptions.ConnectionError, amqp.exceptions.ChannelError, OperationalError, OSError)
"""What comes of a RabbitMQ that is away, or does not take something."""

_LEASE = "bridge:relay"
_SECONDS = 2.0
_LEAVE_SECONDS = 2.0
_MOST = 1000
"""Records of one queue that are looked at in one look."""

_log = logging.getLogger(__name__)


class Relay:
    """The thread of one worker.

    Args:
        place: the Redis with the ledger.
        settings: how often it looks.
        name: this worker's.
        patience: seconds after which a message that is in no queue is not in a worker either.
    """

    def __init__(self, place: Place, settings: LedgerSettings, name: str, patience: float) -> None:
        self._client = place.client(
            retry=Retry(NoBackoff(), 0), socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS
        )
        commands = BlockingRedis(self._client)
        self._outbox = Outbox(commands, settings.look_seconds * 2)
        self._ledger = JobLedger(commands, settings, relayed=True)
        self._settings = settings
        self._name = name
        self._patience = int(patience * MICROSECONDS)
        self._connection: Any = None
        self._channel: Any = None
        self._empty: set[str] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bridge-relay", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is in the outbox is the others' to send."""
        self._stopped.set()
        self._thread.join(_LEAVE_SECONDS)
        self.stop_client()

    def stop_client(self) -> None:
        """Close the connections."""
        self._hang_up()
        self._client.close()

    def _run(self) -> None:
        waited = 0.0
        while not self._stopped.wait(self._settings.beat_seconds):
            waited += self._settings.beat_seconds
            try:
                self.turn()
                if waited >= self._settings.look_seconds:
                    waited = 0.0
                    self.look()
            except redis.RedisError as error:
                _log.debug("nothing could be relayed: %s", type(error).__name__)
            except AWAY as error:
                self._hang_up()
                _log.debug("nothing could be relayed: %s", type(error).__name__)
            except Exception:  # noqa: BLE001 - without this thread, what waits for its time would wait for ever
                self._hang_up()
                _log.exception("messages could not be relayed")

    def turn(self) -> None:
        """Send all that is due."""
        while taken := drive(self._outbox.take()):
            for unsent in taken:
                self._send(unsent)

    def look(self) -> None:
        """Look, if nobody else does, for records whose message is in no queue, though they wait; send those again.

        So look a queue that was emptied by hand, one whose RabbitMQ lost its disk, and what waited in Redis when
        the broker was changed.
        """
        if not self._leads():
            return
        empty = {queue for queue in drive(self._ledger.queues()) if not self._depth(queue)}
        for queue in empty & self._empty:
            self._send_missing(queue)
        self._empty = empty

    def _leads(self) -> bool:
        """Say whether it is this worker that looks, for two looks' time."""
        milliseconds = int(self._settings.look_seconds * 2000)
        if self._client.set(_LEASE, self._name, nx=True, px=milliseconds):
            self._empty.clear()  # somebody else looked until now
            return True
        held: Any = self._client.get(_LEASE)
        return held == self._name.encode() and bool(self._client.pexpire(_LEASE, milliseconds))

    def _send(self, unsent: Unsent) -> None:
        try:
            self._open().resend(unsent.message)
        except amqp.exceptions.RecoverableChannelError as error:  # this one; it comes again, and others can go
            self._hang_up()
            _log.warning("a message could not be sent: %s", error)
            return
        drive(self._outbox.sent(unsent.id, unsent.due))

    def _send_missing(self, queue: str) -> None:
        until = drive(self._ledger.now()) - self._patience
        found: Any = self._client.zrangebyscore(keys.OPEN + queue, "-inf", until, 0, _MOST, withscores=True)
        unsent = drive(self._outbox.waiting()) if found else set()
        for name, queued in ((name.decode(), int(score)) for name, score in found):
            if name not in unsent and drive(self._ledger.requeue(name, state="waiting", queued=queued)):
                events.emit(events.MessageRequeued(name, queue, (until + self._patience - queued) / MICROSECONDS))

    def _depth(self, queue: str) -> int:
        """How many messages wait in a queue; of one that RabbitMQ does not have, nothing is said."""
        try:
            return int(self._open().queue_declare(queue_of(queue), passive=True).message_count)
        except amqp.NotFound:
            self._hang_up()
            return -1

    def _open(self) -> Any:
        """Return a channel on which there are all queues that workers read."""
        if self._channel is None:
            self._connection = app.connection_for_write()
            self._connection.connect()
            self._channel = self._connection.channel()
            for queue in app.amqp.queues.values():
                queue(self._channel).declare()
        return self._channel

    def _hang_up(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(*AWAY):
                connection.release()
