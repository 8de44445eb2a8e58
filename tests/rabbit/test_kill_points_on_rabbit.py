"""Points at which a process can be killed while RabbitMQ carries the messages: the job is done, and done once."""

import signal
import subprocess
import sys

import pytest

from bridge_tasks.bridge import Bridge
from tests.chaos.stage import Stage, done_by_an_heir, done_once
from tests.workers import eventually

IN_SUBMITTER = {
    "before RabbitMQ's record": "new",
    "after RabbitMQ's record": "stands",
    "sent to RabbitMQ, not confirmed": "stands",
    "confirmed by RabbitMQ, in the outbox": "stands",
    "out of the outbox": "stands",
}
"""Points, and what the job is to whoever submits the same after a death there."""

IN_WORKER = (
    ("after it was claimed", "threads"),
    ("before the service is asked", "prefork"),
    ("after the service's success", "threads"),
    ("before the ledger is told", "solo"),
    ("after the ledger was told", "threads"),
    ("before RabbitMQ is told", "threads"),
    ("before RabbitMQ is told", "prefork"),
    ("after RabbitMQ was told", "threads"),
)

BETWEEN_STEPS = (
    "before the next step goes to RabbitMQ",
    "after the next step went to RabbitMQ",
    "after the ledger was told",
)


@pytest.mark.parametrize(("point", "was_there"), IN_SUBMITTER.items())
def test_a_submitter_that_is_killed_and_tries_again_has_one_job(stage: Stage, point: str, was_there: str) -> None:
    assert _killed_submitter(stage, point) == -signal.SIGKILL

    second = subprocess.run(
        [sys.executable, "-m", "tests.chaos.submitting", "single", "again"],
        env=stage.environment,
        check=True,
        capture_output=True,
        text=True,
    )

    name, told = second.stdout.split()
    assert told == was_there
    stage.ready(stage.worker("heir"))
    done_once(stage, Bridge().job(name), "again")


@pytest.mark.parametrize("point", [point for point, told in IN_SUBMITTER.items() if told == "stands"])
def test_what_a_submitter_had_on_record_when_it_was_killed_is_done(stage: Stage, point: str) -> None:
    assert _killed_submitter(stage, point) == -signal.SIGKILL

    stage.ready(stage.worker("heir"))

    assert eventually(lambda: stage.effects() == {"/again": 1}, 30), stage.logs()
    with stage.redis() as client:
        (name,) = [key.removeprefix("bridge:job:") for key in client.scan_iter("bridge:job:*")]
    done_once(stage, Bridge().job(name), "again")


@pytest.mark.parametrize(("point", "pool"), IN_WORKER)
def test_a_worker_that_is_killed_leaves_its_job_to_another(stage: Stage, point: str, pool: str) -> None:
    done_by_an_heir(stage, point, pool)


@pytest.mark.parametrize("point", BETWEEN_STEPS)
def test_a_chain_goes_on_after_its_worker_is_killed_between_two_steps(stage: Stage, point: str) -> None:
    done_by_an_heir(stage, point, kind="chain")


def _killed_submitter(stage: Stage, point: str) -> int:
    dies = {"CHAOS_POINT": point, "CHAOS_MARK": str(stage.directory / "died"), "CHAOS_VICTIM": "process"}
    command = [sys.executable, "-m", "tests.chaos.submitting", "single", "again"]
    return subprocess.run(command, env={**stage.environment, **dies}, check=False).returncode
