"""Our transport, which puts every message that has a record into its queue twice: delivery is at least once."""

from typing import Any

import redis

from bridge_tasks.broker import redis as ours
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.envelope import Envelope


class Channel(ours.Channel):
    def _put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        super()._put(queue, message, **options)
        name = message["headers"].get("id")
        with self.conn_or_acquire() as client:
            kept = client.hget(keys.JOB + str(name), "message")
            if kept is not None:
                again(client, queue, kept)


class Transport(ours.Transport):
    Channel = Channel


def again(client: redis.Redis, queue: str, message: bytes | str) -> None:
    """Deliver a message once more."""
    envelope = Envelope.loads(message).fresh()
    client.lpush(envelope.queue_key(queue), envelope.dumps())
