"""A worker's events, a tenth of a second's at a time.

Celery publishes those of each turn of its loop by themselves, which costs a worker's main process a third of all
it does. A step of Celery's consumer. It must lose no event that Celery would not lose: what waits is sent before
the connection is given up.
"""

from typing import Any

from celery import bootsteps

from bridge_tasks.app import app

GATHER_SECONDS = 0.1
"""How long an event may wait for others; Celery sends 24 that wait at once."""


class Announcing(bootsteps.StartStopStep):
    """The step."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._waiting = False
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        """Have events wait, where Celery buffers them: in pools whose worker has an event loop."""
        self._waiting = False
        if parent.hub and parent.event_dispatcher:
            parent.event_dispatcher.on_send_buffered = lambda: self._gather(parent)

    def stop(self, parent: Any) -> None:
        """Send what waits: the connection goes."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._send(parent)

    def _gather(self, parent: Any) -> None:
        """Begin to wait, unless that has begun. Under threads, this is called in any of them."""
        if not self._waiting:
            self._waiting = True
            parent.call_soon(self._wait, parent)

    def _wait(self, parent: Any) -> None:
        self._timer = parent.timer.call_after(GATHER_SECONDS, self._send, (parent,))

    def _send(self, parent: Any) -> None:
        """Publish; what cannot be, Celery's dispatcher keeps for the next connection."""
        self._waiting = False
        if parent.event_dispatcher:
            parent.event_dispatcher.flush()


app.steps["consumer"].add(Announcing)
