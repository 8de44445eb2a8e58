"""Celery's Redis transport, with a record in the ledger for each message of ours, written in the same instant.

Everything else is kombu's. A message is not sent where its record says that there is one like it, or that its work
is done: that is how two submissions of one job become one, and how a step that is sent twice runs once. A message
that comes is let in only if `admission` knows it for one; kombu's own way with any other ends the consumer.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty
from typing import Any, TypeAlias
from uuid import uuid4

import redis
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.json import dumps

from bridge_tasks import events
from bridge_tasks.broker import admission, recording
from bridge_tasks.errors import MessageRefused
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.envelope import Envelope
from bridge_tasks.resilience.state.shared_redis import Script
from bridge_tasks.settings import load

_HOLD = Script("hold", keys.__package__)
_ACKNOWLEDGE = Script("acknowledge", keys.__package__)
_TAKE = Script("take", keys.__package__)


class QoS(kombu_redis.QoS):
    """What a worker holds; whatever it holds, it is known as a worker.

    One script for each, where kombu has a transaction: both are on the way of every job.
    """

    done_with: Callable[[str], object] | None = None
    """Told of what is done with, by its tag, in place of acknowledging it: the worker takes the next as well."""

    _taken = ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._session = str(uuid4())

    def begin_session(self) -> None:
        """Have this be the connection over which the worker takes messages.

        Whatever it asked for over another, and was too impatient to hear of, takes nothing any more: nobody would
        know that it is held.
        """
        if self._worker:
            with self.channel.conn_or_acquire() as client:  # type: ignore[attr-defined] # not in the stubs
                client.set(keys.SESSION + self._worker, self._session)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message before it is worked on; the worker's name goes along, in case Redis forgot it."""
        if delivery_tag != self._taken:
            told = message.delivery_info
            held = dumps([message._raw, told["exchange"], told["routing_key"]])  # noqa: SLF001 - as kombu keeps it
            if not self._run(_HOLD, (), delivery_tag, time.time(), held, self._worker, self._session):
                raise redis.ConnectionError("the worker is connected anew")
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge, unless the connection was lost: the message was given back then, and is somebody's."""
        if self.channel.connection is None:
            return
        virtual.QoS.ack(self, delivery_tag)
        if self.done_with is None:
            self.forget(delivery_tag)
        else:
            self.done_with(delivery_tag)

    def forget(self, delivery_tag: str) -> None:
        """Hold a message no longer."""
        self._run(_ACKNOWLEDGE, (), delivery_tag)

    def take(self, done: str, lists: Sequence[str], queues: Sequence[str]) -> tuple[bytes, bytes, str] | None:
        """Hold a message no longer, and hold the next: in one round trip.

        Args:
            done: the tag of the one.
            lists: where to look for the other, in this order.
            queues: what the queue of each is called.

        Returns:
            The list, the message, and the tag under which it is held.
        """
        self._taken = str(uuid4())
        told = (done, time.time(), self._worker, self._session, self._taken, *queues)
        answer = self._run(_TAKE, lists, *told)
        return (*answer, self._taken) if answer else None

    @property
    def _worker(self) -> str:
        return self.unacked_key.removeprefix(keys.UNACKED) if self.unacked_key.startswith(keys.UNACKED) else ""

    def _run(self, script: Script, lists: Sequence[str], *arguments: Any) -> Any:
        with self.channel.conn_or_acquire() as client:  # type: ignore[attr-defined] # not in the stubs
            names = (self.unacked_index_key, self.unacked_key, *lists)
            return recording.run_script(client, script, names, arguments)


_Ours: TypeAlias = QoS  # in the class, that name is Celery's


class Channel(kombu_redis.Channel):
    """A channel whose messages have records."""

    QoS = QoS
    qos: _Ours
    heard_at = 0.0
    """When the queues last answered, if only that there is nothing; the worker's pulse tells."""
    _shared: Any = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # What a worker holds by name, kombu must not give back when the channel closes: it tries while Redis is
        # away, and that error ends the worker. It comes back when the worker is connected again, or has left.
        self.do_restore = not self.unacked_key.startswith(keys.UNACKED)

    def _put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        message = recording.signed(message)
        headers = message["headers"]
        if not recording.is_recorded(headers) or options.get("_publish_batch") is not None:
            super()._put(queue, message, **options)
            return
        under_way = recording.under_way()
        if under_way is not None and under_way.stands is not None:
            return
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))  # type: ignore[attr-defined] # not in the stubs
        names, arguments = recording.keys_of(headers["id"], key), recording.record_of(message, key)
        if under_way is None or under_way.accepted:
            self._record(names, arguments)
            return
        arguments = (*arguments, *under_way.submission.arguments())
        if under_way.held_back is not None:
            under_way.held_back.append((len(names), *names, *arguments))
            return
        sent, name, state = self._record(names, arguments)
        under_way.learn(headers["id"], sent=bool(sent), stands=name, state=state)

    def _brpop_read(self, **options: Any) -> bool:
        """Take one message and deliver it, as kombu does; one that is refused is dropped, and that is told."""
        try:
            try:
                answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:  # type: ignore[attr-defined] # not in the stubs
                self.client.connection.disconnect()  # so that the next turn connects again
                raise
            if not answer:
                raise Empty
            self._admit(*answer)
            return True
        finally:
            self.heard_at = time.monotonic()  # an error, too: it ends the connection, and so the step that looks
            self._in_poll = None
            self._flush_brpop_reauth()  # type: ignore[attr-defined] # not in the stubs

    def take_next(self, done: str) -> bool:
        """Acknowledge a message, and deliver the next, if one is there and a slot is free for it: whether so."""
        free = not self._in_poll and self.qos.can_consume()
        queues = self._queue_cycle.consume(len(self.active_queues)) if free else ()  # type: ignore[attr-defined] # not in the stubs
        asked = [(self._q_for_pri(queue, step), queue) for step in self.priority_steps for queue in queues]  # type: ignore[attr-defined] # not in the stubs
        taken = self.qos.take(done, [name for name, _ in asked], [queue for _, queue in asked])
        if taken is not None:
            self.heard_at = time.monotonic()
            self._admit(*taken)
        return taken is not None

    def _admit(self, key: bytes, raw: bytes, tag: str | None = None) -> None:
        """Deliver a message, as kombu does; one that is refused is dropped, and that is told.

        Args:
            key: the list that it was taken from.
            raw: what was in it.
            tag: under which it is held already.
        """
        queue = key.decode(errors="replace").rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)  # type: ignore[attr-defined] # not in the stubs
        try:
            message = _admitted(raw, task=not queue.endswith(_REPLIES))
        except MessageRefused as error:
            self._refuse(queue, raw, error)
            if tag is not None:
                self.qos.forget(tag)
            return
        if tag is not None:
            message["properties"]["delivery_tag"] = tag
        self.connection._deliver(message, queue)  # noqa: SLF001 - as kombu delivers it

    def _receive_one(self, c: Any) -> Any:
        """Deliver what comes over a channel; kombu survives what is no JSON, but not what is too deep."""
        try:
            return super()._receive_one(c)  # type: ignore[misc] # not in the stubs
        except RecursionError:
            raise Empty from None

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        try:
            only_asked = load().worker.orders == "questions"
            admission.vet_order(message, order=exchange.endswith(_ORDERS), questions=only_asked)
        except MessageRefused as error:
            events.emit(events.MessageDropped(exchange, error.field, error.reason, None))
            raise Empty from None
        return bool(super()._deliver_fanout_message(message, exchange))  # type: ignore[misc] # not in the stubs

    def _refuse(self, queue: str, raw: bytes, error: MessageRefused) -> None:
        """Drop a message, and tell."""
        told = Envelope.loads(raw if len(raw) <= load().ledger.max_message_bytes else b"")
        recording.refuse(self.conn_or_acquire, queue, told.task_id, told.message, error)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Give a client over the channel's pool: one for all, where kombu makes one for each command.

        A client keeps no connection, so it is as good for many; making one costs more than a command does.
        """
        if client is None and self.connection is None:  # else kombu fails here in a way that it does not retry
            raise redis.ConnectionError("the channel is closed: its connection was lost")
        if client is None and (self._shared is None or self._shared.connection_pool is not self.pool):
            self._shared = self._create_client()  # type: ignore[attr-defined] # not in the stubs
        yield client or self._shared

    def _record(self, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        with self.conn_or_acquire() as client:
            return recording.put(client, names, arguments)


class Transport(kombu_redis.Transport):
    """The Redis transport over such channels."""

    Channel = Channel


_ORDERS, _REPLIES = "pidbox", ".pidbox"
"""How the queues end in which answers of workers come, which are no tasks."""


def _admitted(raw: bytes, *, task: bool) -> Any:
    """Read what came out of a queue.

    Raises:
        MessageRefused: it is no message, or nobody signed it who may.
    """
    message = admission.envelope(raw, load().ledger.max_message_bytes)
    if task:
        recording.vet_task(message)
    return recording.revived(message, raw)
