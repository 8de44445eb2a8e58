"""The shape of a RabbitMQ message in which all brokers' messages are kept, vetted and signed. It sends nothing."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import amqp
import orjson
from kombu.transport import pyamqp

from bridge_tasks.broker import admission, recording
from bridge_tasks.errors import MessageRefused
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.settings import load

SHORT_WAIT: Final = 1.0
"""Seconds that a message may wait in a worker for its time: no longer than it takes to find it in the outbox."""

_KEPT = ("correlation_id", "reply_to", "priority", "delivery_mode")
"""Properties that a message keeps from its sender to its worker. Its time to live is not among them: a worker that
takes what is too old says so, where a queue would drop it without a word."""
_ORDERS, _EVENTS, _REPLIES = ".pidbox", "celeryev", ".reply."
"""What is in the names of queues that hold no tasks."""


class Message(pyamqp.Message):
    """A message as it came, and as the ledger keeps it."""

    def __init__(self, raw: amqp.Message, channel: Any = None, **options: Any) -> None:
        super().__init__(raw, channel=channel, **options)
        self._raw = kept(raw, self.delivery_info["exchange"], self.delivery_info["routing_key"])
        if self.delivery_info.get("redelivered") and "task" in self.headers:
            self.headers = {**self.headers, "redelivered": True}  # type: ignore[dict-item] # the stubs know texts


def kept(raw: amqp.Message, exchange: str, routing_key: str) -> dict[str, Any]:
    """A message in the shape in which all brokers' messages are kept, vetted and signed."""
    body = raw.body
    properties: dict[str, Any] = {name: raw.properties[name] for name in _KEPT if name in raw.properties}
    return {
        "body": body.decode(errors="replace") if isinstance(body, bytes | bytearray | memoryview) else body,
        "content-type": raw.properties.get("content_type"),
        "content-encoding": raw.properties.get("content_encoding"),
        "headers": raw.properties.get("application_headers") or {},
        "properties": {**properties, "delivery_info": {"exchange": exchange, "routing_key": routing_key}},
    }


def made(message: Mapping[str, Any]) -> amqp.Message:
    """Make what is sent of a message as it is kept."""
    properties = {name: value for name, value in message["properties"].items() if name in _KEPT}
    return amqp.Message(
        message["body"],
        content_type=message["content-type"],
        content_encoding=message["content-encoding"],
        application_headers=dict(message["headers"]),
        **properties,
    )


def holds_tasks(queue: str) -> bool:
    """Say whether a queue is one of tasks; others hold events, orders and answers."""
    return not queue.startswith(_EVENTS) and _ORDERS not in queue


def vet(raw: amqp.Message, queue: str) -> None:
    """Look whether what came is what a queue of its kind may hold.

    Raises:
        MessageRefused: it is not.
    """
    limit = load().ledger.max_message_bytes
    if len(raw.body) > limit:
        raise MessageRefused("message", f"is larger than {limit} bytes")
    message = kept(raw, raw.delivery_info["exchange"], raw.delivery_info["routing_key"])
    if queue.startswith(_EVENTS) or (_ORDERS in queue and _REPLIES not in queue):
        only_asked = load().worker.orders == "questions"
        admission.vet_order(message, order=_ORDERS in queue, questions=only_asked)
        return
    admission.vet_envelope(message)
    if _ORDERS in queue:
        return
    try:
        read = orjson.loads(packed := orjson.dumps(message))
    except (TypeError, ValueError, RecursionError):
        raise MessageRefused("headers", "hold what is no JSON") from None
    recording.vet_task(read)
    raw.properties["application_headers"] = recording.revived(read, packed)["headers"]


def due(headers: Mapping[str, Any]) -> int:
    """When a message is to be sent that waits for its time, in microseconds; 0 for now."""
    try:
        at = datetime.fromisoformat(str(headers.get("eta"))).timestamp()
    except ValueError:
        return 0
    return int(at * MICROSECONDS) if at - time.time() > SHORT_WAIT else 0
