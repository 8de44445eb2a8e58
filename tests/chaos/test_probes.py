"""A probe of a real worker: while it works, stands still, has lost Redis, is full, and ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_tasks.sandbox.faults import Hang
from bridge_tasks.sandbox.processes import LocalProcess
from tests.chaos.stage import Stage, staged, submitted
from tests.workers import eventually, orchestrating


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    own = {
        "BRIDGE_WORKER__PULSE": str(tmp_path / "pulse"),
        "BRIDGE_METADATA__TIMEOUT": "60",  # what hangs is to hang until the test lets it go on
        "BRIDGE_METADATA__DEADLINE": "60",
    }
    with staged(tmp_path, os.environ, **own) as stage, orchestrating(stage.environment):
        yield stage


def probed(stage: Stage, *options: str) -> dict[str, Any]:
    """What the command says, and its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge_tasks.cli", "probe", "--json", *options],
        env=stage.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return {**json.loads(done.stdout), "status": done.returncode}


def consumes(stage: Stage) -> bool:
    return bool(probed(stage)["consuming"])


def signalled(worker: LocalProcess, number: signal.Signals) -> None:
    assert worker.pid
    os.kill(worker.pid, number)


def test_a_worker_that_stands_still_is_not_alive_until_it_goes_on(stage: Stage) -> None:
    assert probed(stage)["status"] == 1, "there is no worker yet"
    worker = stage.ready(stage.worker("standing"))
    assert eventually(lambda: consumes(stage))

    signalled(worker, signal.SIGSTOP)
    try:
        assert eventually(lambda: not probed(stage, "--silence", "1.5")["alive"])
        assert probed(stage, "--silence", "1.5", "--alive")["status"] == 1
    finally:
        signalled(worker, signal.SIGCONT)

    assert eventually(lambda: consumes(stage))


def test_a_worker_without_redis_lives_and_does_not_consume(stage: Stage) -> None:
    stage.ready(stage.worker("alone"))
    assert eventually(lambda: consumes(stage))

    stage.server.stop()
    assert eventually(lambda: not consumes(stage))
    asked = probed(stage, "--alive")
    assert (asked["alive"], asked["status"]) == (True, 0)
    stage.server.start()

    assert eventually(lambda: consumes(stage))


def test_a_worker_with_its_hands_full_consumes_and_one_that_ends_does_not(stage: Stage) -> None:
    worker = stage.ready(stage.worker("busy"))
    stage.controls.faults.add(Hang(path="/hash"))
    jobs = [submitted(f"busy-{number}") for number in range(2)]
    assert eventually(lambda: probed(stage)["reason"] == "all its slots are taken")
    assert consumes(stage)

    signalled(worker, signal.SIGTERM)
    assert eventually(lambda: probed(stage)["reason"] == "it ends what it has, and takes no more")
    assert probed(stage, "--alive")["status"] == 0
    stage.controls.faults.clear()

    assert eventually(lambda: worker.returncode == 0), worker.tail()
    assert not (stage.directory / "pulse").exists()
    stage.ready(stage.worker("next"))
    assert eventually(lambda: all(job.state == "succeeded" for job in jobs)), stage.logs()
