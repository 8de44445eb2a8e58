"""What workers tell whoever listens to Celery's events, Flower above all, of failures: names, and what is ours.

Our own errors are made to be shown. Any other may hold what it tripped over, content perhaps, in its text, and its
traceback repeats that; both are in the log of whoever runs the worker, without local variables.
"""

import re
from typing import Any

from celery.app.events import Events as CelerysEvents
from celery.events.dispatcher import EventDispatcher

from bridge_tasks import errors

_TYPE = re.compile(r"[A-Za-z_][\w.]*")
_FAILURES = ("task-failed", "task-retried")


class Dispatcher(EventDispatcher):
    """Celery's own, which leaves out what may not be shown."""

    def send(self, type: str, *arguments: Any, **fields: Any) -> Any:  # noqa: A002 - Celery's name for it
        """Send an event."""
        if type in _FAILURES:
            fields = shown(fields)
        return super().send(type, *arguments, **fields)


class Events(CelerysEvents):
    """Celery's own, with such a dispatcher."""

    dispatcher_cls = "bridge_tasks.tellings:Dispatcher"


def shown(fields: dict[str, Any]) -> dict[str, Any]:
    """Return of a failure what may be shown."""
    told = str(fields.get("exception") or "")
    found = _TYPE.match(told)
    name = found[0].rpartition(".")[2] if found else "?"
    ours = isinstance(known := getattr(errors, name, None), type) and issubclass(known, errors.BridgeError)
    return {**fields, "exception": told if ours else f"{name}(…)", "traceback": None}
