"""The step that pauses queues, on a consumer that consumes nothing: what it does, tells, and leaves alone."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from celery.signals import task_received

from bridge_tasks import events
from bridge_tasks.resilience.policy.breaker import (
    Cause,
    Circuit,
    CircuitBreakerConfig,
    CircuitState,
    Lease,
    Manual,
    micros,
)
from bridge_tasks.worker.pausing import Pausing, paused_queues
from tests.stopped_clock import StoppedClock

ALL = ("bridge.metadata", "bridge.onextree", "bridge.bulk")
METADATA = {"bridge.metadata", "bridge.bulk"}


@dataclass
class ScriptedWatch:
    """A circuit that is what the test says; `looks` counts."""

    service: str
    changed: Callable[[], None]
    name: str = ""
    config: CircuitBreakerConfig = field(default_factory=CircuitBreakerConfig)
    circuit: Circuit = field(default_factory=Circuit)
    known: Circuit | None = None
    looks: int = 0

    def follow(self) -> None:
        self.name = f"{self.service}'s circuit"

    def look(self) -> None:
        self.looks += 1
        self.circuit = self.known or self.circuit

    def push(self, circuit: Circuit) -> None:
        self.known = self.circuit = circuit
        self.changed()


class TimerByHand:
    """Remembers what was wanted for later; the test makes it later."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def call_after(self, seconds: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> Any:
        entry = (seconds, call, arguments)
        self.waiting.append(entry)
        return SimpleNamespace(cancel=lambda: self.waiting.remove(entry))


class IdleConsumer:
    """What the step needs of Celery's consumer."""

    connection_errors = (ConnectionError,)

    def __init__(self, queues: Sequence[str]) -> None:
        self.selected = set(queues)
        self.timer = TimerByHand()
        self.connect()

    def connect(self) -> None:
        queues = [SimpleNamespace(name=name) for name in sorted(self.selected)]
        self.task_consumer = SimpleNamespace(queues=queues)

    @property
    def consumed(self) -> set[str]:
        return {queue.name for queue in self.task_consumer.queues}

    def cancel_task_queue(self, queue: str) -> None:
        self.selected.discard(queue)
        self.connect()

    def add_task_queue(self, queue: str) -> None:
        self.selected.add(queue)
        self.connect()

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> None:
        call(*arguments)

    def receive(self, queue: str, eta: datetime | None = None) -> None:
        request = SimpleNamespace(delivery_info={"routing_key": queue}, eta=eta)
        task_received.send(sender=self, request=request)


class Worker:
    """A consumer with the step, and the circuits it watches."""

    def __init__(self, queues: Sequence[str], clock: StoppedClock) -> None:
        self.clock = clock
        self.consumer = IdleConsumer(queues)
        self.watches: dict[str, ScriptedWatch] = {}
        self.step = Pausing(self.consumer, watching=self._watching, clock=clock, chance=lambda: 0.5)
        self.epoch = 0

    def _watching(self, service: str, changed: Callable[[], None]) -> ScriptedWatch:
        return self.watches.setdefault(service, ScriptedWatch(service, changed))

    def start(self) -> "Worker":
        self.step.start(self.consumer)
        return self

    def later(self, seconds: float = 1.0) -> None:
        self.clock.advance(seconds)
        ((_, call, arguments),) = self.consumer.timer.waiting
        self.consumer.timer.waiting.clear()
        call(*arguments)

    def circuit(self, state: CircuitState, **parts: Any) -> Circuit:
        self.epoch += 1
        return Circuit(state, epoch=self.epoch, changed_at=micros(self.clock.now), **parts)

    def opened(self, seconds: float = 60.0, **parts: Any) -> Circuit:
        return self.circuit(CircuitState.OPEN, open_for=micros(seconds), cause=Cause.RUN, **parts)

    def push(self, circuit: Circuit, service: str = "metadata") -> None:
        self.watches[service].push(circuit)

    @property
    def consumed(self) -> set[str]:
        return self.consumer.consumed


@pytest.fixture
def worker(clock: StoppedClock) -> Worker:
    return Worker(ALL, clock).start()


@pytest.fixture
def told(facts: list[events.Event]) -> Callable[[str], list[Any]]:
    return lambda queue: [fact for fact in facts if getattr(fact, "queue", None) == queue]


def test_the_queues_of_a_service_whose_circuit_opens_are_left_alone_at_once(worker: Worker) -> None:
    worker.push(worker.opened())

    assert worker.consumed == {"bridge.onextree"}


def test_what_no_push_told_is_found_by_the_next_look(worker: Worker) -> None:
    worker.watches["metadata"].known = worker.opened()

    worker.later()

    assert worker.consumed == {"bridge.onextree"}
    assert worker.watches["metadata"].looks == 2


def test_a_circuit_that_is_open_when_the_worker_starts_lets_nothing_in_from_the_first_moment(
    clock: StoppedClock,
) -> None:
    worker = Worker(ALL, clock)
    worker.watches["metadata"] = ScriptedWatch("metadata", lambda: None, known=worker.opened())

    assert worker.start().consumed == {"bridge.onextree"}


def test_all_is_taken_in_again_when_the_circuit_closes(worker: Worker) -> None:
    worker.push(worker.opened())
    worker.push(worker.circuit(CircuitState.CLOSED))

    assert worker.consumed == set(ALL)


def test_only_queues_that_the_worker_was_started_with_are_paused_and_resumed(
    clock: StoppedClock, told: Callable[[str], list[Any]]
) -> None:
    worker = Worker(("bridge.bulk", "bridge.onextree"), clock).start()
    worker.push(worker.opened())
    assert worker.consumed == {"bridge.onextree"}

    worker.push(worker.circuit(CircuitState.HALF_OPEN))
    worker.later()
    worker.push(worker.circuit(CircuitState.CLOSED))

    assert worker.consumed == {"bridge.bulk", "bridge.onextree"}
    assert told("bridge.metadata") == []


def test_an_overdue_open_circuit_gets_one_message_and_no_second_before_the_next_look(worker: Worker) -> None:
    worker.push(worker.opened(10))
    worker.later(9)
    assert worker.consumed == {"bridge.onextree"}, "its time is not over"

    worker.later(1)
    assert worker.consumed == set(ALL)

    worker.consumer.receive("bridge.metadata")
    assert worker.consumed == {"bridge.onextree", "bridge.bulk"}
    worker.later()
    assert worker.consumed == set(ALL)


def test_the_wish_for_a_probe_stands_until_a_message_comes(worker: Worker) -> None:
    worker.push(worker.opened(10))
    for _ in range(5):
        worker.later(10)

    assert worker.consumed == set(ALL)


def test_a_message_that_only_waits_here_for_its_time_is_no_probe(worker: Worker) -> None:
    worker.push(worker.opened(10))
    worker.later(10)

    worker.consumer.receive("bridge.metadata", eta=datetime.fromtimestamp(time.time() + 60, UTC))
    assert "bridge.metadata" in worker.consumed

    worker.consumer.receive("bridge.metadata", eta=datetime.fromtimestamp(time.time() - 60, UTC))
    assert "bridge.metadata" not in worker.consumed


def test_messages_flow_without_end_where_nothing_is_paused(worker: Worker) -> None:
    worker.push(worker.opened())
    worker.consumer.receive("bridge.onextree")
    worker.consumer.receive("a.queue.of.others")

    assert worker.consumed == {"bridge.onextree"}


def test_half_open_is_not_a_shot_at_which_all_workers_start(worker: Worker) -> None:
    worker.push(worker.opened())
    worker.push(worker.circuit(CircuitState.HALF_OPEN))
    assert worker.consumed == {"bridge.onextree"}, "each worker waits for its own next look"

    worker.later()
    assert worker.consumed == set(ALL)


def test_a_full_half_open_circuit_is_left_alone_but_not_believed_for_ever(worker: Worker) -> None:
    worker.push(worker.opened())
    leases = tuple(Lease(str(number), 0) for number in range(3))
    worker.push(worker.circuit(CircuitState.HALF_OPEN, leases=leases))

    worker.later(1)
    assert worker.consumed == {"bridge.onextree"}
    worker.later(5)
    assert worker.consumed == set(ALL), "the probes' workers may have been killed"


def test_a_circuit_held_open_by_hand_is_probed_by_nobody(worker: Worker) -> None:
    worker.push(worker.opened(manual=Manual.HELD))
    worker.later(86_400)
    assert worker.consumed == {"bridge.onextree"}

    worker.push(worker.circuit(CircuitState.CLOSED, manual=Manual.DISABLED))
    assert worker.consumed == set(ALL)


def test_what_was_paused_is_paused_after_a_reconnection_and_comes_back_when_the_circuit_closes(
    worker: Worker,
) -> None:
    worker.push(worker.opened())
    worker.step.stop(worker.consumer)
    assert worker.consumer.timer.waiting == []

    worker.consumer.connect()
    worker.start()
    assert worker.consumed == {"bridge.onextree"}
    assert len(worker.consumer.timer.waiting) == 1

    worker.push(worker.circuit(CircuitState.CLOSED))
    assert worker.consumed == set(ALL)


def test_news_between_two_connections_waits_for_the_second(worker: Worker) -> None:
    worker.step.stop(worker.consumer)
    worker.push(worker.opened())
    assert worker.consumed == set(ALL)

    worker.start()
    assert worker.consumed == {"bridge.onextree"}


def test_what_an_operator_cancelled_stays_cancelled(worker: Worker) -> None:
    worker.push(worker.opened())
    worker.consumer.cancel_task_queue("bridge.metadata")
    worker.consumer.cancel_task_queue("bridge.onextree")

    worker.push(worker.circuit(CircuitState.CLOSED))

    assert worker.consumed == {"bridge.bulk"}


def test_what_an_operator_adds_while_the_circuit_is_open_is_consumed_when_it_closes(worker: Worker) -> None:
    worker.push(worker.opened())
    worker.consumer.cancel_task_queue("bridge.metadata")
    worker.consumer.add_task_queue("bridge.metadata")
    worker.later()
    assert worker.consumed == {"bridge.onextree"}

    worker.push(worker.circuit(CircuitState.CLOSED))
    assert worker.consumed == set(ALL)


def test_each_opening_and_the_end_of_the_pause_are_told_with_why_and_how_long(
    worker: Worker, told: Callable[[str], list[Any]]
) -> None:
    name = "metadata's circuit"
    worker.push(worker.opened(60))
    worker.later(60)
    worker.push(worker.circuit(CircuitState.HALF_OPEN))
    worker.push(worker.opened(120)._replace(cause=Cause.PROBE_FAILED))
    worker.later(1)
    worker.push(worker.circuit(CircuitState.CLOSED)._replace(cause=Cause.PROBES_GOOD))

    assert told("bridge.metadata") == [
        events.QueuePaused("bridge.metadata", name, "open", Cause.RUN, 60.0),
        events.QueuePaused("bridge.metadata", name, "open", Cause.PROBE_FAILED, 120.0),
        events.QueueResumed("bridge.metadata", name, Cause.PROBES_GOOD, 61.0),
    ]


def test_a_pause_without_an_end_in_sight_says_so(worker: Worker, told: Callable[[str], list[Any]]) -> None:
    worker.push(worker.opened(manual=Manual.HELD))

    assert [fact.seconds for fact in told("bridge.bulk")] == [None]


def test_a_worker_that_is_asked_says_what_waits_for_what(worker: Worker) -> None:
    assert paused_queues(SimpleNamespace(consumer=worker.consumer)) == {}
    worker.push(worker.opened(60))
    worker.later(20)

    answer = paused_queues(SimpleNamespace(consumer=worker.consumer))

    assert set(answer) == METADATA
    assert answer["bridge.bulk"] == {
        "circuit": "metadata's circuit",
        "state": "open",
        "cause": Cause.RUN.value,
        "paused_for": 20.0,
        "tries_in": 40.0,
    }


def test_only_a_lost_connection_gets_through_to_the_event_loop(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker.push(worker.opened())

    def failing(error: Exception) -> Callable[[str], None]:
        def add(_: str) -> None:
            raise error

        return add

    monkeypatch.setattr(worker.consumer, "add_task_queue", failing(KeyError("anything")))
    worker.push(worker.circuit(CircuitState.CLOSED))
    assert "the queues could not be settled" in caplog.text

    monkeypatch.setattr(worker.consumer, "add_task_queue", failing(ConnectionError()))
    with pytest.raises(ConnectionError):
        worker.push(worker.circuit(CircuitState.CLOSED))

    monkeypatch.undo()
    worker.later()
    assert worker.consumed == set(ALL), "and the next look sets it right"
