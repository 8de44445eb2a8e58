"""Sends what is in the outbox and due: what its sender did not send, what waited for its time, what was put back.

Only where the broker is a RabbitMQ. It has a thread of its own: a message may be confirmed late, and signs of life
must not be. Who takes a message from the outbox is the only one who sends it for a while. It must never take one
out of the outbox that RabbitMQ has not confirmed.
"""

import logging
from contextlib import suppress
from typing import Any

import amqp
from kombu.exceptions import OperationalError

from bridge_tasks import events
from bridge_tasks.app import app
from bridge_tasks.driver import drive
from bridge_tasks.ledger import JobLedger, keys
from bridge_tasks.ledger.dead import queue_of
from bridge_tasks.ledger.outbox import Outbox, Unsent
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.places import Place
from bridge_tasks.settings import LedgerSettings
from bridge_tasks.worker.lookout import Lookout

_MOST = 1000
"""Records of one queue that are looked at in one look."""

_log = logging.getLogger(__name__)


class Relay(Lookout):
    """The thread of one worker; what is in the outbox when it ends is the others' to send.

    Args:
        place: the Redis with the ledger.
        settings: how often it looks.
        name: this worker's.
        patience: seconds after which a message that is in no queue is not in a worker either.
    """

    LEASE = "bridge:relay"
    EXPECTED = (amqp.exceptions.ConnectionError, amqp.exceptions.ChannelError, OperationalError, OSError)
    """What comes of a RabbitMQ that is away, or does not take something."""

    def __init__(self, place: Place, settings: LedgerSettings, name: str, patience: float) -> None:
        super().__init__(place, settings, name)
        self._outbox = Outbox(self._commands, settings.look_seconds * 2)
        self._ledger = JobLedger(self._commands, settings, relayed=True)
        self._patience = int(patience * MICROSECONDS)
        self._connection: Any = None
        self._channel: Any = None
        self._empty: set[str] = set()

    def turn(self) -> None:
        """Send all that is due."""
        while taken := drive(self._outbox.take()):
            for unsent in taken:
                self._send(unsent)

    def look(self) -> None:
        """Look for records whose message is in no queue, though they wait; send those again.

        So look a queue that was emptied by hand, one whose RabbitMQ lost its disk, and what waited in Redis when
        the broker was changed.
        """
        empty = {queue for queue in drive(self._ledger.queues()) if not self._depth(queue)}
        for queue in empty & self._empty:
            self._send_missing(queue)
        self._empty = empty

    def forget_evidence(self) -> None:
        """Forget which queues were empty."""
        self._empty.clear()

    def hang_up(self) -> None:
        """Close the connection to RabbitMQ; the next message opens one."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(*self.EXPECTED):
                connection.release()

    def _send(self, unsent: Unsent) -> None:
        try:
            self._open().resend(unsent.message)
        except amqp.exceptions.RecoverableChannelError as error:  # this one; it comes again, and others can go
            self.hang_up()
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
            self.hang_up()
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
