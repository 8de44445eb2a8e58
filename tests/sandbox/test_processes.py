"""A child is started once, told ready from its own behaviour, and never left behind."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bridge_tasks.sandbox.processes import LocalProcess, ProcessFailed

WAIT = "import time\ntime.sleep(60)"
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)"
)
GRANDCHILD = (
    "import subprocess, sys, time\n"
    f"child = subprocess.Popen([sys.executable, '-c', {WAIT!r}])\n"
    "print(child.pid, flush=True)\ntime.sleep(60)"
)


def python(code: str, directory: Path, name: str = "child") -> LocalProcess:
    return LocalProcess([sys.executable, "-c", code], directory=directory, name=name)


def alive(pid: int) -> bool:
    """A zombie that init has not yet collected counts as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_runs_in_its_own_session_and_ends_with_the_block(tmp_path: Path) -> None:
    with python(WAIT, tmp_path) as child:
        assert child.running
        assert os.getsid(child.pid) == child.pid
        pid = child.pid

    assert not alive(pid)
    assert not child.running


def test_waiting_ends_when_the_check_is_true(tmp_path: Path) -> None:
    with python("print('up', flush=True)\n" + WAIT, tmp_path) as child:
        child.wait_ready(lambda: "up" in child.tail())


def test_a_child_that_ends_while_waited_for_fails_at_once_with_its_log(tmp_path: Path) -> None:
    started = time.monotonic()
    failed = pytest.raises(ProcessFailed, match=r"worker ended with status 1\nno such option")
    with python("raise SystemExit('no such option')", tmp_path, "worker") as child, failed:
        child.wait_ready(lambda: False, timeout=60)

    assert time.monotonic() - started < 30


def test_a_child_that_is_never_ready_fails_at_the_deadline(tmp_path: Path) -> None:
    with python(WAIT, tmp_path) as child, pytest.raises(ProcessFailed, match="was not ready"):
        child.wait_ready(lambda: False, timeout=0.1)


def test_a_child_deaf_to_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    child = python(STUBBORN, tmp_path).start()
    child.wait_ready(lambda: "deaf" in child.tail())
    pid = child.pid

    child.terminate(grace=0.1)
    child.terminate()

    assert not alive(pid)


@pytest.mark.parametrize("end", [LocalProcess.terminate, LocalProcess.kill])
def test_the_childs_own_children_end_with_it(tmp_path: Path, end: Callable[[LocalProcess], None]) -> None:
    child = python(GRANDCHILD, tmp_path).start()
    child.wait_ready(lambda: child.tail().strip().isdigit())
    grandchild = int(child.tail())

    end(child)

    deadline = time.monotonic() + 5
    while alive(grandchild):
        assert time.monotonic() < deadline


def test_a_stopped_child_can_be_terminated(tmp_path: Path) -> None:
    child = python(WAIT, tmp_path).start()
    child.send_signal(signal.SIGSTOP)

    child.terminate(grace=5)

    assert not child.running


def test_a_child_can_be_started_again_and_its_log_goes_on(tmp_path: Path) -> None:
    child = python("print('round')", tmp_path)
    for _ in range(2):
        assert child.start().wait(10) == 0

    assert child.tail() == "round\nround\n"


def test_a_child_that_was_never_started_has_no_pid_and_needs_no_end(tmp_path: Path) -> None:
    child = python(WAIT, tmp_path)

    child.terminate()
    child.kill()

    assert (child.running, child.returncode) == (False, None)
    with pytest.raises(RuntimeError, match="has not been started"):
        _ = child.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_services_run_in_one_process_and_end_cleanly_on_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.py").write_text("a")
    command = [sys.executable, "-m", "bridge_tasks.sandbox", "--metadata-port", "0", "--onextree-port", "0"]
    command += ["--tree", str(tmp_path / "tree"), "--database", str(tmp_path / "stamps.db")]

    with LocalProcess(command, directory=tmp_path, name="sandbox") as sandbox:
        sandbox.wait_ready(lambda: "\n" in sandbox.tail())
        urls = httpx.Response(200, text=sandbox.tail()).json()
        assert httpx.get(urls["metadata_url"] + "/health").json()["status"] == "ok"
        assert httpx.get(urls["onextree_url"] + "/health").json()["total_files"] == 1

        sandbox.send_signal(number)

        assert sandbox.wait(10) == 0
        assert sandbox.tail().count("\n") == 1
