"""A worker with much to do does not wait between two messages, however soon one of them is over."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bridge_tasks.app import app
from tests.chaos.stage import Stage, staged, submitted
from tests.workers import eventually, orchestrating

MANY = 150
"""Some 30 s where the event loop sleeps through what it has to acknowledge; a second or two where it does not."""
SOON = 12.0


@pytest.fixture
def stage(tmp_path: Path, inherited: dict[str, str]) -> Iterator[Stage]:
    with staged(tmp_path, inherited) as set_up, orchestrating(set_up.environment):
        yield set_up


def test_a_worker_that_works_in_its_event_loop_goes_from_job_to_job(stage: Stage) -> None:
    jobs = [submitted(f"text-{number}") for number in range(MANY)]
    stage.ready(stage.worker("one", "solo"))
    began = time.monotonic()
    assert eventually(lambda: all(job.state == "succeeded" for job in jobs)), stage.logs()
    assert time.monotonic() - began < SOON


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_busy_worker_passes_over_what_has_expired(stage: Stage, pool: str) -> None:
    gone = datetime.now(UTC) - timedelta(seconds=5)
    first = submitted("first")
    for _ in range(MANY):
        app.send_task("celery.backend_cleanup", queue="bridge.metadata", ignore_result=True, expires=gone)
    last = submitted("last")
    stage.ready(stage.worker("one", pool, slots=1))
    began = time.monotonic()
    assert eventually(lambda: first.state == last.state == "succeeded"), stage.logs()
    assert time.monotonic() - began < SOON
