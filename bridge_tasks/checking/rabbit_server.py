"""Asks one RabbitMQ what it is, over the protocol that jobs use: it needs no plugin and no administrator.

It changes nothing: a queue that is not there is not declared.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp
import kombu

from bridge_tasks.checking.facts import RabbitFacts
from bridge_tasks.tls import is_loopback

SECONDS = 3.0
_PORTS = {"amqp": 5672, "amqps": 5671}
_QUORUM = {"x-queue-type": "quorum"}


def ask(url: str, variable: str, queues: Sequence[str], *, verified: bool) -> RabbitFacts:
    """Ask it.

    Args:
        url: where it is, secret and all.
        variable: the setting that says so.
        queues: those that workers read.
        verified: whether its certificate is looked at.
    """
    parts = urlsplit(url)
    host, tls = parts.hostname or "127.0.0.1", parts.scheme == "amqps"
    told: dict[str, Any] = {
        "variable": variable,
        "host": host,
        "port": parts.port or _PORTS[parts.scheme],
        "loopback": is_loopback(host),
        "tls": tls,
        "verified": verified,
        "guest": unquote(parts.username or "guest") == "guest",
    }
    connection = kombu.Connection(url, connect_timeout=SECONDS, ssl={"server_hostname": host} if tls else False)
    try:
        opened: Any = connection.connect()
        version = str(opened.server_properties.get("version", ""))
        return RabbitFacts(**told, version=_numbers(version), classic=tuple(_classic(connection, queues)))
    except amqp.AccessRefused:
        return RabbitFacts(**told, trouble="login", version=None)
    except (amqp.AMQPError, kombu.exceptions.OperationalError, OSError):
        return RabbitFacts(**told, trouble="away", version=None)
    finally:
        with suppress(amqp.AMQPError, OSError):
            connection.release()


def _classic(connection: "kombu.Connection", queues: Sequence[str]) -> Iterator[str]:
    """The queues that are there, and are no quorum queues: to declare one as it is changes nothing."""
    for queue in queues:
        channel: Any = connection.channel()
        try:
            channel.queue_declare(queue, passive=True)
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=_QUORUM)
        except amqp.NotFound:
            continue
        except amqp.PreconditionFailed:
            yield queue
        else:
            channel.close()


def _numbers(version: str) -> tuple[int, ...] | None:
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    return numbers or None
