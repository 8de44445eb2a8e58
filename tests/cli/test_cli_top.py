"""`bridge-tasks top` on a running stack: who has never seen one sees what fails, for whom, and what to type."""

import json
import os
import pty
import re
import signal
import subprocess
from uuid import uuid4

from bridge_tasks import Bridge
from bridge_tasks.tasks import generate_hash
from tests.cli.command import COMMAND, NO_REDIS, environment, eventually, finish, run, start
from tests.cli.conftest import Up
from tests.workers import PATIENCE, orchestrating


def failing(up: Up, cid: str) -> str:
    """Fail a job for good; its id."""
    page = up.write("top/page.md", "not one byte")
    with orchestrating(
        {"BRIDGE_REDIS_URL": up.addresses["redis_url"], "BRIDGE_CONTENT__ROOTS": str(up.directory)}
    ):
        content = {"kind": "file", "path": str(page), "size": 1}
        work = generate_hash.si(content=content, namespace="handbook")
        job = Bridge().submit(work, correlation_id=cid, force=True)
        (ended,) = Bridge().as_completed([job], timeout=PATIENCE)
        assert ended.error is not None
    return job.id


def test_a_newcomer_can_answer_from_the_screen_alone(up: Up) -> None:
    cid = str(uuid4())
    name = failing(up, cid)

    told = up.run("top", "--once", "--json").json
    (failed,) = [one for one in told["failed"] if one["id"] == name]
    assert (failed["correlation_id"], failed["namespace"], failed["task"]) == (
        cid,
        "handbook",
        "bridge.generate_hash",
    )
    assert failed["subject"].endswith("top/page.md")
    assert failed["error"]["type"] == "ContentUnavailable"
    assert failed["seconds_in_state"] < 60

    screen = up.run("top", "--once").out
    assert "has changed since the job was made" in screen
    (typed,) = re.findall(rf"in handbook: bridge-tasks (status {cid})", screen)
    answered = up.run(*typed.split())
    assert answered.status == 1, "it failed"
    assert f"bridge-tasks dead replay {name}" in answered.out
    shown = up.run("dead", "show", name).out
    assert re.search(r"Namespace +handbook", shown)


def test_for_programs_it_is_a_line_for_each_look(up: Up) -> None:
    with start("top", "--json", "--interval", "0.5", cwd=up.directory) as process:
        assert process.stdout
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(signal.SIGINT)
        ended = finish(process)
    assert (ended.status, ended.err) == (0, "")
    assert first["services"]["metadata"]["calls_per_second"] is None
    assert second["services"]["metadata"]["calls_per_second"] is not None


def test_it_lives_in_a_terminal_until_ctrl_c(up: Up) -> None:
    ours, theirs = pty.openpty()
    shown = b""

    def sees(text: bytes) -> bool:
        nonlocal shown
        shown += os.read(ours, 65_536)
        return text in shown

    extra = {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    try:
        with subprocess.Popen(
            [*COMMAND, "top", "--interval", "0.5"],
            cwd=up.directory,
            env=environment(extra),
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
        ) as process:
            assert eventually(lambda: sees(b"bridge.bulk") and b"Workers     1" in shown)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
            assert process.stderr
            assert process.stderr.read() == b""
    finally:
        os.close(theirs)
        os.close(ours)


def test_a_redis_that_is_away_is_told_and_exits_with_1(up: Up) -> None:
    away = run("top", "--once", cwd=up.directory.parent, extra={"BRIDGE_REDIS_URL": NO_REDIS})
    assert away.status == 1
    assert "Redis is out of reach" in away.out
