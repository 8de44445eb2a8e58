"""Points elsewhere at which a process can be killed: in a submitter, in a reconciler; and workers that stall."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge_tasks import runs, workflows
from bridge_tasks.bridge import Bridge
from bridge_tasks.sandbox.faults import GarbageJson, Latency, Status
from tests.chaos.stage import NOTHING, Stage, died, done_once, staged, submitted
from tests.workers import eventually, orchestrating


@pytest.fixture
def stage(tmp_path: Path, inherited: dict[str, str]) -> Iterator[Stage]:
    with staged(tmp_path, inherited) as set_up, orchestrating(set_up.environment):
        yield set_up


@pytest.mark.parametrize("kind", ["single", "chain"])
@pytest.mark.parametrize("point", ["before it is published", "after it was published"])
def test_a_submitter_that_is_killed_and_tries_again_has_one_job(stage: Stage, point: str, kind: str) -> None:
    command = [sys.executable, "-m", "tests.chaos.submitting", kind, "again"]
    dies = {"CHAOS_POINT": point, "CHAOS_MARK": str(stage.directory / "died"), "CHAOS_VICTIM": "process"}
    first = subprocess.run(command, env={**stage.environment, **dies}, check=False)
    assert first.returncode == -signal.SIGKILL
    with stage.redis() as client:
        assert client.llen("bridge.metadata") == (0 if point.startswith("before") else 1)

    second = subprocess.run(command, env=stage.environment, check=True, capture_output=True, text=True)

    name, was_there = second.stdout.split()
    assert was_there == ("new" if point.startswith("before") else "stands")
    stage.ready(stage.worker("heir"))
    done_once(stage, Bridge().job(name), "again")


@pytest.mark.parametrize(
    ("point", "before"),
    [
        ("after a lost message was pushed", "between BRPOP and unacked"),
        ("after a held message was given back", "after it was claimed"),
    ],
)
def test_a_reconciler_that_is_killed_at_its_work_leaves_it_to_another(
    stage: Stage, point: str, before: str
) -> None:
    doomed = stage.ready(stage.worker("doomed", dies=before))
    job = submitted("found")
    assert died(doomed), stage.logs()
    second = stage.ready(stage.worker("second", dies=point))
    assert died(second), stage.logs()

    stage.ready(stage.worker("heir"))

    done_once(stage, job, "found")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_that_stalls_and_comes_back_finds_its_job_done(stage: Stage, pool: str) -> None:
    stage.controls.faults.add(Latency(seconds=1, count=1, path="/stamp"))
    stalled = stage.ready(stage.worker("stalled", pool))
    job = submitted("stalled")
    assert eventually(stage.effects), stage.logs()
    os.killpg(stalled.pid, signal.SIGSTOP)
    stage.ready(stage.worker("heir", pool))

    assert eventually(lambda: job.state == "succeeded", 60), stage.logs()
    os.killpg(stalled.pid, signal.SIGCONT)

    more = submitted("afterwards")
    assert eventually(lambda: more.state == "succeeded", 60), stage.logs()
    assert stage.effects() == {"/stalled": 1, "/afterwards": 1}
    assert eventually(lambda: stage.leftovers() == NOTHING, 60), stage.leftovers()


def test_a_job_whose_effect_is_unknown_goes_on_though_the_service_answers_nonsense(stage: Stage) -> None:
    doomed = stage.ready(stage.worker("doomed", dies="after the service's success"))
    job = submitted("unknown")
    assert died(doomed), stage.logs()
    stage.controls.faults.add(GarbageJson(count=1, path="/hash"), Status(code=500, count=1, path="/stamp"))

    stage.ready(stage.worker("heir"))

    done_once(stage, job, "unknown")


def test_a_run_that_is_submitted_again_after_an_error_is_the_same_run(stage: Stage) -> None:
    files = [stage.directory / f"{number}.txt" for number in range(6)]
    for file in files:
        file.write_text(file.name)
    run = workflows.stamp_files(files, context="c", chunk_files=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs._Submitting, "_send", _away)
        with pytest.raises(redis.ConnectionError):
            Bridge().submit(run)

    again = Bridge().submit(run)

    assert again.id == run.id
    assert again.progress().total == 6
    stage.ready(stage.worker("only"))
    assert again.wait(60).succeeded == 6
    assert stage.effects() == {str(file): 1 for file in files}
    assert eventually(lambda: stage.leftovers() == NOTHING, 60), stage.leftovers()


@pytest.mark.parametrize("point", ["before a chunk is settled", "after a chunk was settled"])
@pytest.mark.parametrize("together", [True, False], ids=["stamped together", "each alone"])
def test_a_worker_that_is_killed_as_it_settles_a_chunk_leaves_counts_that_agree(
    stage: Stage, point: str, together: bool
) -> None:
    files = [stage.directory / f"{number}.txt" for number in range(3)]
    for file in files:
        file.write_text(file.name)
    if not together:
        stage.controls.faults.add(Status(code=413, count=1, path="/batch"))
    doomed = stage.ready(stage.worker("doomed", dies=point))
    run = Bridge().submit(workflows.stamp_files(files, context="c"))
    assert died(doomed), stage.logs()

    stage.ready(stage.worker("heir"))

    ended = run.wait(60)
    assert (ended.total, ended.succeeded, ended.failed) == (3, 3, 0), stage.logs()
    assert eventually(lambda: stage.leftovers() == NOTHING, 60), stage.leftovers()
    assert (run.progress().succeeded, stage.effects()) == (3, {str(file): 1 for file in files})


def _away(*_: Any) -> bool:
    raise redis.ConnectionError
