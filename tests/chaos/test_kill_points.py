"""Each point at which a process can be killed, by name: the job is done all the same, and done once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_tasks import workflows
from bridge_tasks.bridge import Bridge, Job
from bridge_tasks.models.content import InlineContent
from bridge_tasks.sandbox.faults import Latency
from bridge_tasks.sandbox.processes import LocalProcess
from tests.chaos.stage import Stage, staged
from tests.tasks.sending import inline
from tests.workers import eventually, orchestrating

NOTHING: dict[str, Any] = {"keys": [], "queues": {}}

IN_WORKER = (
    "between BRPOP and unacked",
    "after unacked was written",
    "after it was claimed",
    "before the service is asked",
    "after the service's success",
    "before the ledger is told",
    "after the ledger was told",
    "before it is acknowledged",
    "after it was acknowledged",
)
IN_CHILD = (
    "after it was claimed",
    "before the service is asked",
    "after the service's success",
    "before the ledger is told",
    "after the ledger was told",
)
BETWEEN_STEPS = (
    "before the next step is published",
    "after the next step was published",
    "after the ledger was told",
    "before it is acknowledged",
)


@pytest.fixture
def stage(tmp_path: Path, inherited: dict[str, str]) -> Iterator[Stage]:
    with staged(tmp_path, inherited) as set_up, orchestrating(set_up.environment):
        yield set_up


def submitted(text: str, kind: str = "single") -> Job:
    content = InlineContent.model_validate(inline(text))
    build = workflows.stamp_file if kind == "chain" else workflows.stamp_file_job
    return Bridge().submit(build(content, context=text, file_path=f"/{text}"))


def died(worker: LocalProcess) -> bool:
    return eventually(lambda: worker.returncode == -signal.SIGKILL, 20)


def done_once(stage: Stage, job: Job, text: str) -> None:
    """The job has succeeded, the service has done it once, and the ledger holds nothing open."""
    assert eventually(lambda: job.state == "succeeded", 30), (job.record, stage.leftovers(), stage.logs())
    assert stage.effects() == {f"/{text}": 1}
    assert eventually(lambda: stage.leftovers() == NOTHING, 20), (stage.leftovers(), stage.logs())


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
@pytest.mark.parametrize("point", IN_WORKER)
def test_a_worker_that_is_killed_leaves_its_job_to_another(stage: Stage, point: str, pool: str) -> None:
    doomed = stage.ready(stage.worker("doomed", pool, dies=point))

    job = submitted("whole")
    assert died(doomed), stage.logs()
    stage.ready(stage.worker("heir", pool))

    done_once(stage, job, "whole")


@pytest.mark.parametrize("point", IN_CHILD)
def test_a_pools_child_that_is_killed_leaves_its_job_to_another(stage: Stage, point: str) -> None:
    stage.ready(stage.worker("doomed", "prefork", dies=point, alone=True))

    job = submitted("child")
    assert eventually((stage.directory / "doomed.died").exists, 20), stage.logs()

    done_once(stage, job, "child")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("point", BETWEEN_STEPS)
def test_a_chain_goes_on_after_its_worker_is_killed_between_two_steps(stage: Stage, point: str, pool: str) -> None:
    doomed = stage.ready(stage.worker("doomed", pool, dies=point))

    job = submitted("chain", "chain")
    assert died(doomed), stage.logs()
    stage.ready(stage.worker("heir", pool))

    done_once(stage, job, "chain")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_that_is_killed_in_the_call_leaves_its_job_to_another(stage: Stage, pool: str) -> None:
    stage.controls.faults.add(Latency(seconds=60, count=1, path="/stamp"))
    doomed = stage.ready(stage.worker("doomed", pool))

    job = submitted("called")
    assert eventually(lambda: stage.controls.records.counts()["faults"] or stage.effects()), stage.logs()
    doomed.kill()
    stage.ready(stage.worker("heir", pool))

    done_once(stage, job, "called")


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

    assert eventually(lambda: job.state == "succeeded", 30), stage.logs()
    os.killpg(stalled.pid, signal.SIGCONT)

    more = submitted("afterwards")
    assert eventually(lambda: more.state == "succeeded", 30), stage.logs()
    assert stage.effects() == {"/stalled": 1, "/afterwards": 1}
    assert eventually(lambda: stage.leftovers() == NOTHING, 20), stage.leftovers()
