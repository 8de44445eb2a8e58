"""Stops a worker from consuming the queues of a service whose circuit is open, and lets it probe, one by one.

A step of Celery's consumer, in the worker's main process. The rules are `resilience.policy.pausing`. In doubt it
consumes. It never calls a service, never blocks the event loop for longer than shared state may take, and touches
only queues that this worker consumes and no operator has cancelled.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from celery import bootsteps
from celery.signals import task_received
from celery.worker.consumer.tasks import Tasks
from celery.worker.control import inspect_command

from bridge_tasks import events
from bridge_tasks.app import app
from bridge_tasks.resilience.policy.circuit import Circuit, CircuitBreakerConfig, CircuitState, micros
from bridge_tasks.resilience.policy.pausing import Intake, intake, seconds_left
from bridge_tasks.runtime import current
from bridge_tasks.settings import load
from bridge_tasks.worker.circuit_watch import CircuitWatch

QUEUES: Final[Mapping[str, Sequence[str]]] = {
    "metadata": ("bridge.metadata", "bridge.bulk"),
    "onextree": ("bridge.onextree",),
}
"""Whose queues are whose."""

LOOK_SECONDS = 1.0
"""Between two looks at the circuits, give or take a half: workers that look together would probe together."""

NEWS_SECONDS = 0.5
"""How long a worker that starts waits to be told of changes; where Redis is away, it goes on without."""

_log = logging.getLogger(__name__)


class Watch(Protocol):
    """What is known of the circuit of one service."""

    service: str
    name: str
    config: CircuitBreakerConfig
    circuit: Circuit

    def follow(self) -> None:
        """Be told of changes from now on. Idempotent."""
        ...

    def look(self) -> None:
        """Ask for the circuit; where that cannot be, leave it as it was."""
        ...


def watch_here(service: str, changed: Callable[[], None]) -> Watch:
    """Watch a circuit over this process's runtime, and give the news a moment to begin: jobs are about to."""
    watch = CircuitWatch(service, current(), changed)
    watch.follow()
    current().circuit_news.listening.wait(NEWS_SECONDS)
    return watch


@dataclass(slots=True)
class _Pause:
    """A queue that is not free."""

    watch: Watch
    since: float
    taken_at: float
    told: int = -1
    """The epoch of the circuit that was last told as a fact."""


class Pausing(bootsteps.StartStopStep):
    """The step. `parent.pausing` is it."""

    requires = (Tasks,)

    def __init__(
        self,
        parent: Any,
        *,
        watching: Callable[[str, Callable[[], None]], Watch] = watch_here,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        **options: Any,
    ) -> None:
        super().__init__(parent, **options)
        parent.pausing = self
        self._watching = watching
        self._clock = clock
        self._chance = chance
        self._pauses: dict[str, _Pause] = {}
        self._watches: list[Watch] = []
        self._timer: Any = None
        # `celery control cancel_consumer` comes in by this name: what an operator orders is not ours to undo.
        self._cancel, parent.cancel_task_queue = parent.cancel_task_queue, self._cancelled_by_hand

    def include_if(self, parent: Any) -> bool:
        """Say whether there is anything to watch."""
        del parent
        return bool(load().task.pause)

    def start(self, parent: Any) -> None:
        """Begin, or go on after a reconnection, before anything is consumed. What was paused still is."""
        if not self._watches:
            self._watches = [
                self._watching(service, lambda: self._changed(parent))
                for service in dict.fromkeys(load().task.pause)
            ]
            task_received.connect(self._received, sender=parent, weak=False)
        self._tick(parent)

    def stop(self, parent: Any) -> None:
        """End for now: there is no connection, or the worker goes."""
        del parent
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def paused(self) -> dict[str, dict[str, Any]]:
        """Tell which queues wait, and for what, as plain JSON."""
        now = self._clock()
        return {queue: _told(pause, now) for queue, pause in self._pauses.items()}

    def _tick(self, parent: Any) -> None:
        self._timer = parent.timer.call_after(LOOK_SECONDS * (0.5 + self._chance()), self._tick, (parent,))
        for watch in self._watches:
            watch.follow()
            watch.look()
        self._settle(parent, may_probe=True)

    def _changed(self, parent: Any) -> None:
        """Hear, in another thread, that a circuit changed. All workers hear it at once: nobody probes on it."""
        parent.call_soon(self._heard, parent)

    def _heard(self, parent: Any) -> None:
        """Settle, within the event loop, which nothing but a lost connection may end."""
        try:
            self._settle(parent, may_probe=False)
        except parent.connection_errors:
            raise
        except Exception:  # noqa: BLE001 - the loop is everybody's, and the next look sets things right
            _log.exception("the queues could not be settled")

    def _settle(self, parent: Any, *, may_probe: bool) -> None:
        """Bring every queue to the intake that its circuit allows."""
        if self._timer is None or parent.task_consumer is None:
            return  # called late, by news that came when all was over
        consumed = {queue.name for queue in parent.task_consumer.queues}
        for watch in self._watches:
            for queue in QUEUES[watch.service]:
                self._settle_one(parent, queue, watch, consumed=queue in consumed, may_probe=may_probe)

    def _settle_one(self, parent: Any, queue: str, watch: Watch, *, consumed: bool, may_probe: bool) -> None:
        now = self._clock()
        pause = self._pauses.get(queue)
        wanted = intake(watch.circuit, watch.config, micros(now), now - pause.taken_at if pause else 0.0)
        if wanted is Intake.FREE:
            if pause is not None:
                if not consumed:
                    parent.add_task_queue(queue)
                del self._pauses[queue]
                events.emit(events.QueueResumed(queue, watch.name, watch.circuit.cause.value, now - pause.since))
            return
        if pause is None:
            if not consumed:
                return
            pause = self._pauses[queue] = _Pause(watch, now, now)
        self._tell(queue, pause, now)
        if wanted is Intake.NONE and consumed:
            self._cancel(queue)
        elif wanted is Intake.ONE and not consumed and may_probe:
            parent.add_task_queue(queue)

    def _received(self, sender: Any, request: Any, **_: Any) -> None:
        """Let the one message that was wanted be the last for now; one that waits here for its time is none."""
        queue = str(request.delivery_info.get("routing_key"))
        pause = self._pauses.get(queue)
        if pause is None or (request.eta is not None and request.eta.timestamp() > time.time()):
            return
        pause.taken_at = self._clock()
        if queue in {one.name for one in sender.task_consumer.queues}:
            self._cancel(queue)

    def _cancelled_by_hand(self, queue: str) -> None:
        """Have an operator's word be the last: such a queue comes back when the operator says so."""
        self._pauses.pop(queue, None)
        self._cancel(queue)

    def _tell(self, queue: str, pause: _Pause, now: float) -> None:
        circuit = pause.watch.circuit
        if pause.told != -1 and (circuit.state is not CircuitState.OPEN or circuit.epoch == pause.told):
            return
        pause.told = circuit.epoch
        told = _told(pause, now)
        events.emit(
            events.QueuePaused(queue, pause.watch.name, circuit.state.value, told["cause"], told["tries_in"])
        )


def _told(pause: _Pause, now: float) -> dict[str, Any]:
    circuit = pause.watch.circuit
    left = seconds_left(circuit, micros(now))
    return {
        "circuit": pause.watch.name,
        "state": circuit.state.value,
        "cause": circuit.cause.value,
        "paused_for": round(now - pause.since, 1),
        "tries_in": round(left, 1) if math.isfinite(left) else None,
    }


@inspect_command()
def paused_queues(state: Any, **_: Any) -> dict[str, Any]:
    """Tell which queues this worker has paused, and why; `bridge-tasks health` asks."""
    pausing: Pausing | None = getattr(state.consumer, "pausing", None)
    return pausing.paused() if pausing is not None else {}


app.steps["consumer"].add(Pausing)
