"""What a worker does with messages that Celery cannot run: it drops them, and says so without their content.

Celery writes such a message into the log, body and all, control characters and all. What `admission` lets in may
still ask for a task that nobody here knows, or trip over something that it did not look at.
"""

import logging
from typing import Any

from celery import bootsteps
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from bridge_tasks import events
from bridge_tasks.app import app
from bridge_tasks.errors import MessageRefused
from bridge_tasks.runtime import current

_log = logging.getLogger(__name__)


class Refusing(bootsteps.StartStopStep):
    """The step of Celery's consumer. It is there before anything is fetched."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._consumer = parent
        parent.on_unknown_message = lambda _, message: self._drop(message, "headers.task", "is missing")
        parent.on_unknown_task = lambda _, message, __: self._drop(message, "headers.task", "is not known here")
        parent.on_invalid_task = lambda _, message, __: self._drop(message, "message", "cannot be run")
        parent.on_decode_error = lambda message, _: self._drop(message, "body", "cannot be read")

    def _drop(self, message: Any, field: str, reason: str) -> None:
        """Acknowledge a message, so that it does not come again; end its record, and answer who waits for it."""
        headers = message.headers or {}
        name = headers.get("id")
        told = message.delivery_info or {}
        events.emit(events.MessageDropped(str(told.get("routing_key")), field, reason, name))
        message.ack_log_error(_log, self._consumer.connection_errors)
        if name is None:
            return
        error = MessageRefused(field, reason)
        runtime = current()
        try:
            runtime.run(runtime.ledger.refuse(name, message._raw, error))  # noqa: SLF001 - as kombu keeps it
            self._consumer.app.backend.store_result(name, error, "FAILURE")
        except (RedisError, OperationalError, OSError) as away:
            events.emit(events.LedgerSilent("refuse", type(away).__name__))


app.steps["consumer"].add(Refusing)
