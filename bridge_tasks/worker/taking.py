"""A worker that is done with a message takes the next with the same words: one round trip where there were three.

A step of Celery's consumer, in pools whose worker has an event loop. It must keep nothing unacknowledged, nor take
what there is no slot for; when the loop ends, the pool goes on, and what it does is acknowledged and no more.
"""

import logging
from functools import partial
from typing import Any, NoReturn

import redis
from celery import bootsteps
from celery.worker import state

from bridge_tasks.app import app
from bridge_tasks.broker.redis import Channel

AT_ONCE = 0.001
"""Seconds. What is due at once, the loop does before it waits."""

_log = logging.getLogger(__name__)


class Taking(bootsteps.StartStopStep):
    """The step."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._channel: Channel | None = None

    def start(self, parent: Any) -> None:
        """Begin to take; over another broker than Redis, there is nothing to gain."""
        channel = parent.task_consumer.channel
        if parent.hub and isinstance(channel, Channel):
            self._channel = channel
            channel.qos.done_with = partial(_take, parent, channel)

    def stop(self, parent: Any) -> None:
        """Take no more."""
        del parent
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.qos.done_with = None


def _take(parent: Any, channel: Channel, done: str) -> None:
    """Take the next. Celery, which calls this to acknowledge, would only log that the connection is lost."""
    reserved = len(state.reserved_requests)
    try:
        if channel.take_next(done) and len(state.reserved_requests) <= reserved:
            # It is over already (it had expired, say): the loop, which would wait now, has that to acknowledge.
            parent.hub.call_later(AT_ONCE, _look_up)
    except redis.ResponseError as error:
        _log.warning("the next message could not be taken: %s", type(error).__name__)
    except Exception as error:  # noqa: BLE001 - the loop knows what ends a connection, and what ends the worker
        parent.call_soon(_fail, error)


def _look_up() -> None:
    """Do nothing: that the loop has come back is all that is wanted."""


def _fail(error: Exception) -> NoReturn:
    raise error


app.steps["consumer"].add(Taking)
