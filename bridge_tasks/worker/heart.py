"""Gives the worker's pulse every second, into the file of BRIDGE_WORKER__PULSE, for `bridge-tasks probe`.

A step of Celery's consumer, which tells when the event loop turns, and a thread, which goes on when it does not:
while Redis is away, and while the worker ends. It must never keep a worker from working: what cannot be written
is not.
"""

import logging
import threading
import time
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.signals import worker_shutdown
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

from bridge_tasks import pulse
from bridge_tasks.app import app
from bridge_tasks.settings import load

BEAT_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Heart(bootsteps.StartStopStep):
    """The step."""

    requires = (Tasks,)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._consumer = parent
        self._path = Path(load().worker.pulse)
        self._turned = self._connected_at = time.monotonic()
        self._connected = False
        self._turning: Any = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="bridge-heart", daemon=True)

    def include_if(self, parent: Any) -> bool:
        """Say whether anybody wants to know."""
        del parent
        return bool(load().worker.pulse)

    def start(self, parent: Any) -> None:
        """Begin, or go on after a reconnection."""
        self._turned = self._connected_at = time.monotonic()
        self._connected = True
        self._turning = parent.timer.call_repeatedly(BEAT_SECONDS, self._turn)
        if not self._thread.is_alive():
            worker_shutdown.connect(self._leave, weak=False)
            self._thread.start()

    def stop(self, parent: Any) -> None:
        """Have no connection for now, or for ever."""
        del parent
        self._connected = False
        turning, self._turning = self._turning, None
        if turning is not None:
            turning.cancel()

    def _turn(self) -> None:
        self._turned = time.monotonic()

    def _beat(self) -> None:
        complained = False
        while True:
            try:
                pulse.write(self._path, self._felt())
                complained = False
            except Exception as error:  # noqa: BLE001 - a probe will find the pulse missing, and say so
                if not complained:
                    _log.warning("no pulse can be given: %s", type(error).__name__)
                complained = True
            if self._stopped.wait(BEAT_SECONDS):
                return

    def _felt(self) -> pulse.Pulse:
        consumer = self._consumer
        reading = consumer.task_consumer
        heard = getattr(reading and reading.channel, "heard_at", None)
        slots = getattr(consumer.controller, "max_concurrency", None) or consumer.pool.num_processes
        return pulse.Pulse(
            beat=time.monotonic(),
            turned=self._turned,
            heard=None if heard is None else max(heard, self._connected_at),
            connected=self._connected,
            leaving=_told(state.should_stop) or _told(state.should_terminate),
            reading=bool(reading and reading.queues),
            full=len(state.reserved_requests) >= slots,
            longest=float(app.conf.task_time_limit),
        )

    def _leave(self, **_: Any) -> None:
        self._stopped.set()
        self._thread.join(BEAT_SECONDS)
        self._path.unlink(missing_ok=True)


def _told(order: Any) -> bool:
    return order is not None and order is not False  # an exit status of 0 is an order


app.steps["consumer"].add(Heart)
