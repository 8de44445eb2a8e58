"""The step that gives a worker's pulse, beside a consumer that stands still for the test."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.signals import worker_shutdown

from bridge_tasks import pulse, settings
from bridge_tasks.worker.heart import Heart
from tests.workers import eventually


class Timer:
    """Remembers what it should call."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_repeatedly(self, _seconds: float, call: Callable[[], None]) -> Any:
        self.calls.append(call)
        return SimpleNamespace(cancel=self.calls.clear)


@pytest.fixture
def consumer() -> SimpleNamespace:
    return SimpleNamespace(
        timer=Timer(),
        task_consumer=SimpleNamespace(queues=["one"], channel=SimpleNamespace(heard_at=1.0)),
        controller=SimpleNamespace(),
        pool=SimpleNamespace(num_processes=2),
        steps=[],
    )


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    file = tmp_path / "later" / "pulse"
    monkeypatch.setenv("BRIDGE_WORKER__PULSE", str(file))
    settings.load.cache_clear()
    yield file
    worker_shutdown.send(sender=None)  # which ends the thread
    settings.load.cache_clear()


def felt(file: Path) -> pulse.Pulse:
    found = eventually(lambda: pulse.read(file))
    assert found
    return found


def test_what_cannot_be_written_is_told_once_and_comes_as_soon_as_it_can(
    file: Path, consumer: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Heart(consumer).start(consumer)
        assert eventually(lambda: "no pulse can be given" in caplog.text)
        file.parent.mkdir()

        assert felt(file).connected
    assert caplog.text.count("no pulse") == 1


def test_a_heart_beats_on_without_a_connection_and_leaves_nothing_when_the_worker_ends(
    file: Path, consumer: SimpleNamespace
) -> None:
    file.parent.mkdir()
    heart = Heart(consumer)
    heart.start(consumer)
    first = felt(file)
    assert (first.connected, first.reading, first.full, len(consumer.timer.calls)) == (True, True, False, 1)
    assert first.heard is not None
    assert first.heard > 1.0, "what was heard over an earlier connection does not count"

    heart.stop(consumer)
    consumer.task_consumer = None
    assert eventually(lambda: not felt(file).connected)
    assert (felt(file).reading, consumer.timer.calls) == (False, [])

    worker_shutdown.send(sender=None)
    assert not file.exists()
