"""Redis is away for longer than a worker may be silent: nobody is taken for dead, and what was held comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge_tasks.bridge import Job
from bridge_tasks.sandbox.faults import Latency, Status
from tests.chaos.stage import DEAD_AFTER, NOTHING, Stage, staged, submitted
from tests.workers import eventually, orchestrating

AWAY = DEAD_AFTER + 1


@pytest.fixture
def stage(tmp_path: Path, inherited: dict[str, str]) -> Iterator[Stage]:
    more = {
        "BRIDGE_METADATA__TIMEOUT": "30",
        "BRIDGE_TASK__RETRY__INITIAL": "5",
        "BRIDGE_TASK__RETRY__MAXIMUM": "5",
        "BRIDGE_TASK__DEADLINE": "25",
        "BRIDGE_METADATA__DEADLINE": "25",
    }
    with staged(tmp_path, inherited, **more) as set_up, orchestrating(set_up.environment):
        yield set_up


def asked(stage: Stage, path: str) -> int:
    return len(stage.controls.records.select(path=path))


def succeeded(job: Job, seconds: float = 30) -> bool:
    return eventually(lambda: known(job) == "succeeded", seconds)


def known(job: Job) -> str:
    try:
        return job.state
    except OSError:
        return "nobody knows"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_run_that_goes_on_through_an_outage_is_not_begun_again(stage: Stage, pool: str) -> None:
    stage.controls.faults.add(Latency(seconds=4 * AWAY, count=1, path="/hash"))
    for name in ("one", "two"):
        stage.ready(stage.worker(name, pool))
    job = submitted("long")
    assert eventually(lambda: asked(stage, "/hash"), 60), stage.logs()

    stage.server.kill()
    assert eventually(lambda: asked(stage, "/hash") > 1, AWAY) is False
    stage.server.start()

    assert succeeded(job, 60), stage.logs()
    assert job.record.runs == 1, stage.logs()
    assert stage.effects() == {"/long": 1}
    assert eventually(lambda: stage.leftovers() == NOTHING, 60), (stage.leftovers(), stage.logs())


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_waits_in_a_workers_memory_comes_back_after_an_outage(stage: Stage, pool: str) -> None:
    stage.controls.faults.add(Status(code=503, count=1, path="/stamp"))
    stage.ready(stage.worker("one", pool))
    job = submitted("later")
    assert eventually(lambda: job.state == "waiting" and job.record.runs == 1, 60), stage.logs()
    with stage.redis() as client:
        assert eventually(lambda: client.keys("bridge:unacked:*") and not client.llen("bridge.metadata"))

    stage.server.kill()
    stage.server.start()

    assert succeeded(job), (job.record, stage.leftovers(), stage.logs())
    assert stage.effects() == {"/later": 1}
    assert eventually(lambda: stage.leftovers() == NOTHING, 60), (stage.leftovers(), stage.logs())
