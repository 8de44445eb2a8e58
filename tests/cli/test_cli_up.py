import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.cli.command import COMMAND, Up, environment, finish, processes_that_know, run, start

JOB_KEYS = {"path", "state", "hash", "stamp_id", "degraded", "error"}
COUNTS = ("total", "succeeded", "failed", "cancelled", "unfinished", "degraded")
RUN_KEYS = {"correlation_id", "run_id", *COUNTS, "sealed", "interrupted", "seconds", "jobs", "jobs_left_out"}


@pytest.fixture
def docs(up: Up, request: pytest.FixtureRequest) -> Path:
    """A directory of three files of this test's own."""
    name = str(request.node.name)
    for number in range(3):
        up.write(f"{name}/{number}.md", f"# {name} {number}\n")
    up.write(f"{name}/.git/config", "not mine to stamp")
    return Path(up.directory, name)


def requests_of(up: Up, correlation_id: str) -> list[str]:
    """The paths that both services were asked for under an id."""
    answers = [
        httpx.get(f"{up.addresses[url]}/_sandbox/requests", params={"correlation_id": correlation_id}).json()
        for url in ("metadata_url", "onextree_url")
    ]
    return [record["path"] for answer in answers for record in answer]


def test_stamp_prints_one_object_with_a_job_per_file(up: Up, docs: Path) -> None:
    ended = up.run("stamp", docs.name, "--json", "--correlation-id", "order-66")
    assert ended.status == 0, ended.err
    report = ended.json
    assert set(report) == RUN_KEYS
    assert [report[count] for count in COUNTS] == [3, 3, 0, 0, 0, 0]
    assert report["interrupted"] is False
    assert [job["path"] for job in report["jobs"]] == [f"{docs.name}/{number}.md" for number in range(3)]
    assert all(set(job) == JOB_KEYS and job["state"] == "succeeded" for job in report["jobs"])
    assert all(len(job["hash"]) == 64 and job["stamp_id"] for job in report["jobs"])
    # Given one correlation id, every request of the run carries it.
    asked = requests_of(up, report["correlation_id"])
    assert [sum(path.endswith(end) for path in asked) for end in ("/hash", "/batch", "/stamp")] == [3, 1, 0]
    assert any(path.endswith("/intelligence") for path in asked)


def test_stamp_ends_with_a_table_and_a_summary_for_people(up: Up, docs: Path) -> None:
    ended = up.run("stamp", docs, "--exclude", "2.md")
    assert ended.status == 0
    assert [line.split()[1] for line in ended.out.splitlines()] == ["State", "succeeded", "succeeded"]
    summary, correlation_id = ended.err.splitlines()
    assert summary.startswith("2 files: 2 succeeded, 0 failed, 0 degraded in ")
    assert correlation_id.startswith("Correlation id: ")


def test_a_terminal_sees_a_live_bar(up: Up, docs: Path) -> None:
    controller, terminal = os.openpty()
    shown = b""
    with subprocess.Popen(
        [*COMMAND, "stamp", docs.name],
        cwd=up.directory,
        env=environment({"TERM": "xterm"}),
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    ):
        os.close(terminal)
        with suppress(OSError):  # how Linux says that the other end is closed
            while chunk := os.read(controller, 4096):
                shown += chunk
    os.close(controller)
    assert b"Stamping" in shown
    assert b"3/3" in shown


def test_of_many_files_only_those_that_need_a_look_have_a_row(up: Up, docs: Path) -> None:
    for number in range(25):
        (docs / f"{number:02}.txt").write_text(str(number))
    (docs / "binary.dat").write_bytes(b"\xff\xfe\x00")  # the service stamps text
    ended = up.run("stamp", docs)
    assert ended.status == 1
    assert ["failed" in line for line in ended.out.splitlines()[1:]] == [True]
    assert "28 succeeded, 1 failed" in ended.err


def test_a_file_that_is_refused_fails_alone_and_its_name_is_shown_escaped(up: Up, docs: Path) -> None:
    (docs / "evil\x1b[31m\n.md").write_text("x")
    ended = up.run("stamp", docs, docs / "missing", "/etc/hostname", "--json")
    assert ended.status == 1
    assert (ended.json["succeeded"], ended.json["failed"]) == (3, 3)
    assert [job["error"] for job in ended.json["jobs"] if job["state"] == "refused"] == [
        "must not hold control characters",
        "does not exist",
        f"is outside the directories that jobs may read: {up.directory}",
    ]
    shown = up.run("stamp", docs, "--quiet")
    assert "\x1b" not in shown.out + shown.err
    assert r"evil\x1b[31m\n.md" in shown.out
    assert "0.md" not in shown.out


def test_validate_tells_the_stamped_from_the_changed_and_the_unknown(up: Up, docs: Path) -> None:
    assert up.run("stamp", docs, "--quiet").status == 0
    assert up.run("validate", docs).status == 0
    (docs / "1.md").write_text("changed")
    (docs / "3.md").write_text("<!-- not a stamp -->")
    ended = up.run("validate", docs, docs / "missing", "--json")
    assert ended.status == 1
    report = ended.json
    assert [job["state"] for job in report["jobs"]] == ["valid", "unstamped", "valid", "unstamped", "refused"]
    assert {key: report[key] for key in ("total", "valid", "invalid", "unstamped", "failed")} == {
        "total": 5,
        "valid": 2,
        "invalid": 0,
        "unstamped": 2,
        "failed": 1,
    }
    assert set(report["jobs"][0]) == {"path", "state", "source", "stamps_found", "stamp_id", "error"}
    shown = up.run("validate", docs)
    assert "no stamp  never stamped, or changed since" in " ".join(shown.out.split("\n"))
    assert "2 no stamp" in shown.err


def test_beyond_twenty_files_those_that_are_alike_share_a_row(up: Up, docs: Path) -> None:
    ended = up.run("stamp", docs, *(docs / f"missing-{number}" for number in range(21)), "/etc/hostname")
    assert ended.status == 1
    assert [line.split()[:3] for line in ended.out.splitlines()[1:]] == [
        ["21", "files", "refused"],
        ["1", "file", "refused"],
    ]


@pytest.mark.parametrize("arguments", [("empty",), (".", "--include", "*.nothing")])
def test_where_there_are_no_files_it_is_said_and_status_1(up: Up, arguments: tuple[str, ...]) -> None:
    (up.directory / "empty").mkdir(exist_ok=True)
    ended = up.run("stamp", *arguments)
    assert (ended.status, ended.out, ended.err) == (1, "", "No files found.\n")


def test_from_a_directory_below_the_way_to_the_stack_is_shown(up: Up, docs: Path) -> None:
    ended = run("stamp", ".", cwd=docs)
    assert ended.status == 2
    assert ended.err == (
        f"bridge-tasks: Nothing is set up here: .bridge.env is in {up.directory}, run this from there\n"
    )


def test_health_finds_everything_well_as_a_worker_sees_it(up: Up) -> None:
    ended = up.run("health", "--json")
    assert ended.status == 0, ended.out
    assert ended.json["healthy"]
    assert ended.json["workers"]["count"] == 1
    assert ended.json["metadata"]["address"] == up.addresses["metadata_url"]
    assert {ended.json[name]["seen_by"] for name in ("metadata", "onextree")} == {"a worker"}


def test_the_file_that_other_terminals_read_is_for_its_owner_only(up: Up) -> None:
    file = up.directory / ".bridge.env"
    assert file.stat().st_mode & 0o777 == 0o600
    assert up.addresses["redis_url"] in file.read_text()


def test_a_second_stack_in_the_same_directory_is_refused(up: Up) -> None:
    ended = up.run("up")
    assert ended.status == 2
    assert "a stack is up in this directory already" in ended.err


def test_nothing_listens_beyond_this_machine(up: Up) -> None:
    ports = {urlsplit(up.addresses[name]).port for name in ("redis_url", "metadata_url", "onextree_url")}
    ports.add(urlsplit(up.addresses["flower"]["url"]).port)
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    bound = {
        int(local.split(":")[1], 16): local.split(":")[0] for _, local, _, state, *_ in listening if state == "0A"
    }
    assert {bound[port] for port in ports if port} == {"0100007F"}
    assert len(ports) == 4


def test_flower_wants_a_password_that_no_command_line_shows(up: Up) -> None:
    flower = up.addresses["flower"]
    assert httpx.get(f"{flower['url']}/tasks").status_code == 401
    assert httpx.get(f"{flower['url']}/tasks", auth=(flower["user"], flower["password"])).status_code == 200
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in lines if flower["password"].encode() in line]


def test_celery_itself_finds_the_stack_in_the_same_directory(up: Up) -> None:
    command = [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "inspect", "ping", "--json"]
    done = subprocess.run(command, cwd=up.directory, env=environment(), capture_output=True, text=True, check=True)
    assert "pong" in done.stdout


def test_a_worker_that_dies_ends_the_stack_and_is_named(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with start(
        "up", "--json", "--no-flower", "--pool", "solo", cwd=tmp_path, extra={"TMPDIR": str(temporary)}
    ) as process:
        assert process.stdout
        os.kill(json.loads(process.stdout.readline())["worker_pid"], signal.SIGKILL)
        ended = finish(process, timeout=10)
    assert ended.status == 1
    assert "bridge-tasks: worker ended with status -9" in ended.err
    assert "ready" in ended.err  # the end of its log
    assert not (tmp_path / ".bridge.env").exists()
    assert not processes_that_know(str(temporary))


def test_the_panel_tells_where_everything_is_and_sigterm_ends_it_all(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    options = ("--no-flower", "--verbose", "--pool", "threads", "--dialect", "guide")
    with ExitStack() as taken:
        with suppress(OSError):  # another stack has the usual port
            taken.enter_context(socket.create_server(("127.0.0.1", 8058)))
        process = taken.enter_context(start("up", *options, cwd=tmp_path, extra={"TMPDIR": str(temporary)}))
        assert process.stdout
        assert process.stderr
        panel = "".join(iter(process.stdout.readline, "  bridge-tasks health\n"))
        moved = []
        while "is taken" in (line := process.stderr.readline()):
            moved.append(line)
        assert line  # the worker's log
        process.send_signal(signal.SIGTERM)
        ended = finish(process, timeout=10)
    assert ended.status == 143
    assert ended.err.endswith("Stopped.\n")
    assert any(line.startswith("8058 is taken: OnexTree is on ") for line in moved)
    for told in ("bridge_tasks is up", "redis://127.0.0.1:", "threads, 2 at a time", "not started", str(tmp_path)):
        assert told in panel
    assert [file.name for file in tmp_path.iterdir()] == ["tmp"]
    assert not list(temporary.iterdir())
    assert not processes_that_know(str(temporary))


def test_metrics_tells_what_the_ledger_knows_and_where_workers_tell_the_rest(up: Up, docs: Path) -> None:
    assert up.run("stamp", docs.name).status == 0
    told = up.run("metrics")
    assert told.status == 0
    assert 'bridge_fleet_tasks_ended_total{state="succeeded",task="bridge.stamp_chunk"}' in told.out
    url = up.addresses["metrics_url"]
    assert url in told.err
    assert "bridge_task_duration_seconds_count" in httpx.get(url).text

    targets = json.loads(up.run("metrics", "--targets").out)
    assert [one["targets"] for one in targets] == [[urlsplit(url).netloc]]
    as_json = up.run("metrics", "--json").json
    assert {"name": "bridge_fleet_ledger_up", "labels": {}, "value": 1.0} in as_json["metrics"]
    assert as_json["workers"] == targets
