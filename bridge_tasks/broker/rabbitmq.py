"""Celery's transport for RabbitMQ; each message of ours has a record in the ledger, written before it is sent.

Nothing may get lost in between: a record is written together with a note in the outbox, the message is sent and
confirmed, and only then the note is taken out; what is left over is sent by `worker.relay`. So a message may come
twice, which its claim knows. Queues that last are quorum queues. What waits for its time waits in the outbox, not
in a queue and in no worker. A message that comes is let in only if `admission` knows it for one.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Final

import amqp
import orjson
import redis
from amqp.exceptions import RecoverableChannelError, RecoverableConnectionError, error_for_code
from amqp.spec import Basic
from kombu.transport import pyamqp
from kombu.utils.json import dumps

from bridge_tasks import events
from bridge_tasks.broker import recording
from bridge_tasks.broker.amqp_message import Message, due, holds_tasks, kept, made, vet
from bridge_tasks.errors import MessageRefused
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.outbox import OUTBOX_SENT
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.ledger.workers import NOBODY, this_worker
from bridge_tasks.runtime import current
from bridge_tasks.settings import load

CONFIRM_SECONDS: Final = 10.0
"""After which a message that is not confirmed is taken for not sent; it may have been."""
LEDGER_SECONDS: Final = 60.0
"""How long a worker waits for the ledger: as long as a restart of Redis may take."""

_PAUSE_SECONDS = 0.5


class Channel(pyamqp.Channel):
    """A channel whose messages have records, and are confirmed one by one."""

    Message = Message

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._published = 0
        self._awaited: int | None = None
        self._nacked = False
        self._returned: Exception | None = None
        self._cancelled: set[str] = set()
        self._selected = False
        super().__init__(*arguments, **options)

    def queue_declare(self, queue: str = "", *positional: Any, **options: Any) -> Any:
        """Declare a queue; one that is to last is a quorum queue, unless somebody wants another."""
        lasting = options.get("durable") and not options.get("exclusive") and not options.get("auto_delete")
        if lasting and not options.get("passive"):
            options["arguments"] = {"x-queue-type": "quorum", **(options.get("arguments") or {})}
        return super().queue_declare(queue, *positional, **options)

    def wait(
        self, method: Any, callback: Any = None, timeout: float | None = None, returns_tuple: bool = False
    ) -> Any:
        """Wait for an answer, as py-amqp does, but not for ever."""
        return super().wait(method, callback, CONFIRM_SECONDS if timeout is None else timeout, returns_tuple)

    # Sending

    def basic_publish_confirm(
        self, msg: amqp.Message, exchange: str = "", routing_key: str = "", **options: Any
    ) -> None:
        """Send a message; when this returns, RabbitMQ has it, or the outbox has.

        Raises:
            amqp.exceptions.RecoverableConnectionError, OSError: RabbitMQ or the ledger is out of reach.
            amqp.exceptions.RecoverableChannelError: no queue takes it; it was not sent.
            MessageRefused: no worker would take it.
        """
        del options  # what is not to vanish is mandatory, whatever the sender thinks
        headers = msg.properties.get("application_headers") or {}
        if "task" not in headers:  # an event, an order, an answer: whoever listens hears it
            self._push(msg, exchange, routing_key, mandatory=False)
            return
        message = recording.signed(orjson.loads(dumps(kept(msg, exchange, routing_key))))
        if recording.is_recorded(headers):
            self._send_recorded(message, routing_key)
        else:
            msg.properties["application_headers"] = message["headers"]
            self._send(msg, exchange, routing_key, mandatory=True)

    basic_publish = basic_publish_confirm  # type: ignore[assignment] # each with its own signature

    def resend(self, message: Mapping[str, Any]) -> None:
        """Send a message as the ledger keeps it; its record stays as it is."""
        told = message["properties"].get("delivery_info") or {}
        self._send(made(message), told.get("exchange") or "", told["routing_key"], mandatory=True)

    def _send_recorded(self, message: dict[str, Any], queue: str) -> None:
        """Write the record of a message, send it, and take it out of the outbox."""
        under_way = recording.under_way()
        if under_way is not None and under_way.stands is not None:
            return
        name, later = message["headers"]["id"], due(message["headers"])
        arguments: tuple[Any, ...] = recording.record_of(message, queue)
        submitted = under_way is not None and not under_way.accepted
        if under_way is not None and submitted:
            arguments = (*arguments, *under_way.submission.arguments())
        sent, stands, state, *held = self._record(name, queue, arguments, later)
        if under_way is not None and submitted:
            under_way.learn(name, sent=bool(sent), stands=stands, state=state)
        if held and not later:
            self.resend(message)
            self._note_sent(name, held[0])

    def _record(self, name: str, queue: str, arguments: tuple[Any, ...], later: int) -> Any:
        """Write the record and the note; a worker outlasts a restart of Redis, a producer is told soon."""
        hold = int(load().ledger.look_seconds * 2 * MICROSECONDS)
        touched = (*recording.keys_of(name, queue), keys.OUTBOX)
        until = time.monotonic() + (0.0 if this_worker() == NOBODY else LEDGER_SECONDS)
        while True:
            try:
                return recording.put(current().ledger_redis, touched, (*arguments, hold, later))
            except redis.RedisError as error:
                if time.monotonic() > until:
                    raise RecoverableConnectionError(f"the ledger is away: {type(error).__name__}") from error
                time.sleep(_PAUSE_SECONDS)

    def _note_sent(self, name: str, due: Any) -> None:
        """Take a message out of the outbox; where that cannot be, it is sent once more."""
        try:
            recording.run_script(current().ledger_redis, OUTBOX_SENT, (keys.OUTBOX,), (name, due))
        except redis.RedisError as error:
            events.emit(events.LedgerSilent("sent", type(error).__name__))

    def _push(self, msg: amqp.Message, exchange: str, routing_key: str, *, mandatory: bool) -> int:
        """Send, and return the number under which it will be confirmed: RabbitMQ counts all of a channel."""
        if not self._selected:
            self.confirm_select()
            self._selected = True
        super().basic_publish(msg, exchange=exchange, routing_key=routing_key, mandatory=mandatory)
        self._published += 1
        return self._published

    def _send(self, msg: amqp.Message, exchange: str, routing_key: str, *, mandatory: bool) -> None:
        """Send, and wait until RabbitMQ has it: on the disks of most of its nodes, in a quorum queue."""
        self._nacked, self._returned = False, None
        self._await_confirm(self._push(msg, exchange, routing_key, mandatory=mandatory))
        if self._returned is not None:
            self.connection.client.declared_entities.clear()  # somebody deleted the queue: it is declared anew
            raise RecoverableChannelError(f"no queue takes it: {self._returned}")
        if self._nacked:
            raise RecoverableConnectionError("RabbitMQ refused a message: it has no quorum, or no room")

    def _await_confirm(self, tag: int) -> None:
        self._awaited = tag
        until = time.monotonic() + CONFIRM_SECONDS
        while self._awaited is not None:
            if self.connection is None:
                raise RecoverableConnectionError("the connection was lost before a message was confirmed")
            left = until - time.monotonic()
            if left <= 0:
                raise RecoverableConnectionError(f"a message was not confirmed within {CONFIRM_SECONDS:g} s")
            try:
                self.connection.drain_events(timeout=left)
            except TimeoutError:
                continue

    def _on_basic_ack(self, delivery_tag: int, multiple: bool) -> None:
        awaited = self._awaited
        if awaited is not None and (delivery_tag == awaited or (multiple and awaited < delivery_tag)):
            self._awaited = None

    def _on_basic_nack(self, delivery_tag: int, multiple: bool) -> None:
        self._on_basic_ack(delivery_tag, multiple)
        self._nacked = self._awaited is None

    def _on_basic_return(
        self, reply_code: int, reply_text: str, exchange: str, routing_key: str, message: amqp.Message
    ) -> None:
        del message
        self._returned = error_for_code(
            reply_code, f"{reply_text} ({exchange or routing_key})", Basic.Return, amqp.ChannelError
        )

    # Taking

    def basic_consume(  # type: ignore[override] # kombu names what it gives
        self, queue: str = "", *positional: Any, callback: Callable[[Any], Any], **options: Any
    ) -> Any:
        """Consume a queue; what is no message of its kind is dropped, and that is told."""

        def vetted(raw: Any) -> None:
            if raw.delivery_info["consumer_tag"] in self._cancelled:
                self.basic_reject(raw.delivery_tag, requeue=True)  # others may have it
                return
            try:
                vet(raw, queue)
            except MessageRefused as error:
                self.basic_ack(raw.delivery_tag)
                self._refuse(queue, raw, error)
            else:
                callback(raw)

        return super().basic_consume(queue, *positional, callback=vetted, **options)  # type: ignore[misc]

    def basic_cancel(self, consumer_tag: str, *positional: Any, **options: Any) -> Any:
        """Stop consuming: at once, whatever is on its way here."""
        self._cancelled.add(consumer_tag)
        return super().basic_cancel(consumer_tag, *positional, **options)

    def _refuse(self, queue: str, raw: amqp.Message, error: MessageRefused) -> None:
        headers = raw.properties.get("application_headers") or {}
        if not holds_tasks(queue):
            events.emit(events.MessageDropped(queue, error.field, error.reason, None))
            return
        told = kept(raw, raw.delivery_info["exchange"], raw.delivery_info["routing_key"])
        recording.refuse(lambda: nullcontext(current().ledger_redis), queue, headers.get("id"), told, error)


class Connection(pyamqp.Connection):
    """A connection with such channels."""

    Channel = Channel


class Transport(pyamqp.Transport):
    """The AMQP transport over such connections."""

    Connection = Connection

    def qos_semantics_matches_spec(self, connection: Any) -> bool:
        """Have each consumer's prefetch be its own: a quorum queue knows no other."""
        del connection
        return True


class SSLTransport(pyamqp.SSLTransport, Transport):
    """The same over TLS."""
