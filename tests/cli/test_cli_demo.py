import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bridge_tasks.cli.demo import _retries
from tests.cli.command import environment, finish, processes_that_know, run, start

LOGGING = """
from bridge_tasks import events
from bridge_tasks.observability import logs
logs.configure(json_lines=True)
events.emit(events.RetryScheduled("metadata", "hash", 1, 0.2, "503"))
for outcome in ("retried", "succeeded", "failed"):
    events.emit(events.JobFinished("bridge.stamp_file", "id", outcome, 0.1, 1, None, "a.py"))
"""


def test_the_demonstration_stamps_validates_and_finds_the_changed_file(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    # An environment that is meant for another deployment must not reach it.
    extra = {"TMPDIR": str(temporary), "BRIDGE_BROKER_URL": "redis://127.0.0.1:1/0", "BRIDGE_TASK__DEADLINE": "x"}
    ended = run("demo", "--files", "30", "--json", cwd=tmp_path, extra=extra)
    assert ended.status == 0, ended.err
    figures = ended.json
    expected = {
        "files": 30,
        "valid": 30,
        "failed": 0,
        "degraded": 0,
        "retries": 0,
        "changed": 1,
        "changed_found": 1,
    }
    assert expected.items() <= figures.items()
    assert figures["bytes"] > 30
    assert 0 < figures["cache_hits"] < 30
    assert figures["requests"] >= 30 + 3  # a hash for each file, and a batch for each ten
    assert [file.name for file in tmp_path.iterdir()] == ["tmp"]
    assert not list(temporary.iterdir())
    assert not processes_that_know(str(temporary))


def test_retries_are_counted_from_what_a_worker_logs(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with log.open("w") as file:
        subprocess.run([sys.executable, "-c", LOGGING], stderr=file, env=environment(), check=True)
        file.write("no JSON\n")
    assert _retries(log) == 2


@pytest.mark.parametrize(
    ("moment", "number", "status"),
    [("Starting", signal.SIGTERM, 143), ("Stamping", signal.SIGINT, 130)],
)
def test_a_demonstration_that_is_interrupted_leaves_nothing(
    moment: str, number: signal.Signals, status: int, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with start("demo", cwd=tmp_path, extra={"TMPDIR": str(temporary)}) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith(moment):
                break
        process.send_signal(number)
        ended = finish(process, timeout=10)
    assert ended.status == status
    assert "Traceback" not in ended.err
    assert not list(temporary.iterdir())
    assert not processes_that_know(str(temporary))
