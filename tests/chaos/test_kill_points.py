"""Each point at which a process can be killed, by name: the job is done all the same, and done once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge_tasks.sandbox.faults import Latency
from tests.chaos.stage import NOTHING, Stage, died, done_by_an_heir, done_once, staged, submitted
from tests.workers import eventually, orchestrating

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


@pytest.mark.parametrize(
    ("point", "pool"),
    [
        *((point, "threads") for point in IN_WORKER),
        *((point, "prefork") for point in IN_WORKER[::2]),
        *((point, "solo") for point in IN_WORKER[2::3]),
    ],
)
def test_a_worker_that_is_killed_leaves_its_job_to_another(stage: Stage, point: str, pool: str) -> None:
    done_by_an_heir(stage, point, pool)


@pytest.mark.parametrize("point", ["after the next was taken", "before what was taken is admitted"])
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_is_killed_as_it_takes_the_next_message_loses_none(
    stage: Stage, point: str, pool: str
) -> None:
    names = [f"many-{number}" for number in range(12)]
    jobs = [submitted(name) for name in names]
    doomed = stage.ready(stage.worker("doomed", pool, dies=point))
    assert died(doomed), stage.logs()
    stage.ready(stage.worker("heir", pool))

    assert eventually(lambda: all(job.state == "succeeded" for job in jobs), 60), stage.logs()
    assert stage.effects() == {f"/{name}": 1 for name in names}
    assert eventually(lambda: stage.leftovers() == NOTHING, 20), (stage.leftovers(), stage.logs())


@pytest.mark.parametrize("point", IN_CHILD)
def test_a_pools_child_that_is_killed_leaves_its_job_to_another(stage: Stage, point: str) -> None:
    stage.ready(stage.worker("doomed", "prefork", dies=point, alone=True))

    job = submitted("child")
    assert eventually((stage.directory / "doomed.died").exists, 60), stage.logs()

    done_once(stage, job, "child")


@pytest.mark.parametrize(
    ("point", "pool"), [*((point, "threads") for point in BETWEEN_STEPS), (BETWEEN_STEPS[0], "prefork")]
)
def test_a_chain_goes_on_after_its_worker_is_killed_between_two_steps(stage: Stage, point: str, pool: str) -> None:
    done_by_an_heir(stage, point, pool, "chain")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_that_is_killed_in_the_call_leaves_its_job_to_another(stage: Stage, pool: str) -> None:
    stage.controls.faults.add(Latency(seconds=60, count=1, path="/stamp"))
    doomed = stage.ready(stage.worker("doomed", pool))

    job = submitted("called")
    assert eventually(lambda: stage.controls.records.counts()["faults"] or stage.effects()), stage.logs()
    doomed.kill()
    stage.ready(stage.worker("heir", pool))

    done_once(stage, job, "called")
