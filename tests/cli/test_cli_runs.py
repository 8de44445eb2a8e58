"""Runs from the command line: they go on when nobody watches, and can be watched, cancelled and resumed."""

import json
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from bridge_tasks import Bridge, runs, workflows
from bridge_tasks.cli import watching
from bridge_tasks.cli.file_runs import RunOptions
from bridge_tasks.cli.run_report import Manner, Names
from bridge_tasks.cli.screen import bars
from bridge_tasks.cli.silence import Silence
from bridge_tasks.cli.stamping import StampOptions, stamp
from bridge_tasks.cli.watching import Follower, watch
from bridge_tasks.ledger.packing import FileOutcome
from bridge_tasks.runtime import current
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.cli.command import Ended, Up, eventually, finish, run, start
from tests.stopped_clock import StoppedClock
from tests.workers import orchestrating

COUNTS = ("total", "succeeded", "failed", "cancelled", "unfinished")


@pytest.fixture
def docs(up: Up, request: pytest.FixtureRequest) -> Path:
    """A directory of 30 files of this test's own."""
    name = str(request.node.name)
    for number in range(30):
        up.write(f"{name}/{number:02}.md", f"# {name} {number}\n")
    return Path(up.directory, name)


@contextmanager
def slow(up: Up, seconds: float) -> Iterator[None]:
    """Let the service take its time."""
    url = f"{up.addresses['metadata_url']}/_sandbox/faults"
    httpx.post(url, json=[{"kind": "latency", "seconds": seconds, "path": "/hash"}]).raise_for_status()
    try:
        yield
    finally:
        httpx.delete(url).raise_for_status()


def hashed(up: Up, correlation_id: str) -> list[dict[str, Any]]:
    """The requests to hash something under an id."""
    wanted = {"correlation_id": correlation_id, "path": "/hash"}
    requests: list[dict[str, Any]] = httpx.get(
        f"{up.addresses['metadata_url']}/_sandbox/requests", params=wanted
    ).json()
    return requests


@pytest.fixture
def silent_redis(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a deployment that has a Redis, and nobody who works."""
    with PrivateRedis() as server:
        yield {"BRIDGE_REDIS_URL": server.url, "BRIDGE_CONTENT__ROOTS": str(tmp_path)}


def test_a_run_that_is_detached_can_be_watched_to_its_end(up: Up, docs: Path) -> None:
    detached = up.run("stamp", docs.name, "--detach", "--json")
    assert (detached.status, detached.json["total"]) == (0, 30), detached.err

    latest, named = up.run("watch", "--json"), up.run("watch", detached.json["run_id"], "--json")

    assert latest.status == named.status == 0
    assert latest.json == named.json
    assert latest.json["run_id"] == detached.json["run_id"]
    assert latest.json["correlation_id"] == detached.json["correlation_id"]
    assert [latest.json[count] for count in COUNTS] == [30, 30, 0, 0, 0]
    assert [job["path"] for job in latest.json["jobs"]] == [f"{docs.name}/{number:02}.md" for number in range(30)]
    cancelled = up.run("cancel", detached.json["run_id"])
    assert (cancelled.status, cancelled.out) == (1, "The run had ended before: succeeded.\n")


def test_ctrl_c_ends_the_watching_and_not_the_run(up: Up, docs: Path) -> None:
    command = ("stamp", docs.name, "--correlation-id", "left-alone")
    with slow(up, 8.0), start(*command, cwd=up.directory) as process:
        assert eventually(lambda: bool(hashed(up, "left-alone")))
        process.send_signal(signal.SIGINT)
        ended = finish(process)
    assert ended.status == 130
    told = ended.err.splitlines()
    assert "Interrupted: 0 of 30 files done, 30 files at workers or in the queue will go on." in told
    (hint,) = [line.removeprefix("To watch it: ") for line in told if line.startswith("To watch it: ")]
    program, *words = shlex.split(hint)
    assert program == "bridge-tasks"

    watched = up.run(*words)

    assert watched.status == 0
    assert "30 files: 30 succeeded, 0 failed" in watched.err


def test_a_run_is_cancelled(up: Up, docs: Path) -> None:
    with slow(up, 8.0):
        name = up.run("stamp", docs.name, "--detach", "--json").json["run_id"]
        cancelled = up.run("cancel", name, "--json")

    assert cancelled.status == 0
    assert (cancelled.json["stopped"], cancelled.json["state"]) == (True, "cancelled")
    watched = up.run("watch", name)
    assert watched.status == 1
    assert "30 cancelled" in watched.err
    assert "The run was cancelled." in watched.err


def test_json_lines_tell_of_each_file_and_then_of_the_run(up: Up, docs: Path) -> None:
    ended = up.run("stamp", docs.name, "--json-lines")

    *jobs, report = map(json.loads, ended.out.splitlines())
    assert [job["state"] for job in jobs] == ["succeeded"] * 30
    assert report["total"] == report["succeeded"] == 30
    assert "jobs" not in report


def test_what_was_stamped_stands_and_force_does_it_again(up: Up, docs: Path) -> None:
    first = up.run("stamp", docs.name, "--json", "--hashing", "local")
    again = up.run("stamp", docs.name, "--json")
    forced = up.run("stamp", docs.name, "--json", "--force")

    assert [job["hash"] for job in first.json["jobs"]] == [job["hash"] for job in forced.json["jobs"]]
    asked = [hashed(up, ended.json["correlation_id"]) for ended in (first, again, forced)]
    assert [len(requests) for requests in asked] == [1, 0, 30]


@pytest.mark.parametrize("command", [("watch",), ("watch", "nothing"), ("cancel", "nothing")])
def test_a_run_that_nobody_knows_is_one_clear_line(
    command: tuple[str, ...], silent_redis: dict[str, str], tmp_path: Path
) -> None:
    ended = run(*command, cwd=tmp_path, extra=silent_redis)

    assert ended.status == 1
    assert ended.err.startswith("bridge-tasks: there is no record of ")
    assert len(ended.err.splitlines()) == 1


def test_a_job_is_cancelled_as_a_run_is(silent_redis: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with orchestrating(silent_redis):
        job = Bridge().submit(workflows.stamp_file(tmp_path / "file", context="x"))

    assert run("cancel", job.id, cwd=tmp_path, extra=silent_redis).out == "Cancelled.\n"
    again = run("cancel", job.id, "--json", cwd=tmp_path, extra=silent_redis)
    assert (again.status, again.json["stopped"], again.json["state"]) == (1, False, "cancelled")


def test_who_stops_the_submitting_is_told_how_to_send_the_rest(
    silent_redis: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "some docs"
    folder.mkdir()
    for number in range(25):
        (folder / f"{number:02}.md").write_text(str(number))
    options = RunOptions([folder], ("*.md",), (), None, None, 0.5, as_json=False, quiet=False)
    submit = runs.submit

    def interrupted(plan: Any, **given: Any) -> Any:
        def on_chunk(handle: runs.Run, files: int) -> None:
            given["on_chunk"](handle, files)
            if files >= 10:
                raise KeyboardInterrupt

        return submit(plan, resume=given["resume"], on_chunk=on_chunk)

    with orchestrating(silent_redis):
        with monkeypatch.context() as patch:
            patch.setattr(runs, "submit", interrupted)
            assert stamp(options, StampOptions(chunk_files=5)) == 130
        told = capsys.readouterr().err.splitlines()
        said = (
            "Interrupted: 0 of 25 files done, 10 files at workers or in the queue will go on, 15 files not sent."
        )
        assert said in told
        (hint,) = [line.removeprefix("To send the rest: ") for line in told if line.startswith("To send the rest")]
        words = shlex.split(hint)
        assert words[:3] == ["bridge-tasks", "stamp", "--resume"]
        assert words[4:] == ["--include", "*.md", str(folder)]

        assert stamp(options, StampOptions(chunk_files=5, resume=words[3])) == 1
        assert "25 files at workers or in the queue will go on." in capsys.readouterr().err


def test_a_redis_that_goes_away_in_the_midst_of_it_is_no_reason_to_begin_anew(
    silent_redis: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.md").write_text("x")
    options = RunOptions([tmp_path], (), (), "docs", None, None, as_json=False, quiet=False)
    error = redis.ConnectionError("gone")
    with orchestrating(silent_redis):
        monkeypatch.setattr(runs._Submitting, "_send", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(redis.ConnectionError):
            stamp(options, StampOptions())
    assert "To go on: bridge-tasks stamp --resume " in capsys.readouterr().err


@pytest.fixture
def abandoned(silent_redis: dict[str, str], tmp_path: Path) -> Iterator[runs.Run]:
    """A run whose submitter was lost on the way; what it had sent has succeeded. This process can look at it."""
    for number in range(20):
        (tmp_path / f"{number:02}.md").write_text(str(number))
    sent: list[runs.Run] = []

    def lost(handle: runs.Run, files: int) -> None:
        if files >= 10:
            sent.append(handle)
            raise KeyboardInterrupt

    with orchestrating(silent_redis):
        with pytest.raises(KeyboardInterrupt):
            runs.submit(
                workflows.stamp_files(sorted(tmp_path.glob("*.md")), context="x", chunk_files=5), on_chunk=lost
            )
        (run_,) = sent
        for number in range(2):
            assert current().run(current().runs.settle(run_.id, number, [FileOutcome("succeeded")] * 5))
        yield run_


def test_a_run_that_was_not_submitted_to_its_end_is_no_success(
    abandoned: runs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch(abandoned.id, 0.5, Manner()) == 1

    said = capsys.readouterr().err.splitlines()
    assert "10 files: 10 succeeded, 0 failed, 0 degraded in " in said[0]
    rest = f"bridge-tasks stamp --resume {abandoned.id} PATH…"
    assert said[1:4] == [
        "Time is over: 10 of 10 files done, and more may come: it was not submitted to its end yet.",
        f"To watch it: bridge-tasks watch {abandoned.id}",
        f"If its submitter is gone, this sends the rest (the same PATHs and options as before): {rest}",
    ]

    assert watch(abandoned.id, 0.5, Manner(as_json=True)) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["sealed"], told["succeeded"], told["unfinished"]) == (False, 10, 0)


def test_who_watches_a_run_whose_submitter_is_silent_is_told_so(
    abandoned: runs.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def read(line: str) -> None:
        said.append(line)
        if len(said) == 1:
            raise KeyboardInterrupt  # whoever reads it types Ctrl-C

    monkeypatch.setattr(watching, "say", read)
    assert watch(abandoned.id, None, Manner(quiet=True)) == 130
    assert "All that was sent has ended" in said[0]
    assert f"bridge-tasks stamp --resume {abandoned.id} PATH…" in said[0]
    assert said[1].startswith("Interrupted: 10 of 10 files done, and more may come")


def test_status_tells_how_to_send_the_rest_of_a_run(
    abandoned: runs.Run, silent_redis: dict[str, str], tmp_path: Path
) -> None:
    told = run("status", abandoned.id, cwd=tmp_path, extra=silent_redis)

    assert told.status == 0
    assert "running, and not submitted to its end yet" in told.out
    assert f"bridge-tasks watch {abandoned.id}" in told.out
    assert f"bridge-tasks stamp --resume {abandoned.id} PATH…" in told.out


def test_who_submits_slowly_is_not_told_that_the_submitter_may_be_gone(abandoned: runs.Run) -> None:
    clock, said = StoppedClock(), list[str]()
    with bars(quiet=True) as shown:
        follower = Follower(shown, 20, silence=Silence(said.append, lambda: False, clock))
        for _ in range(3):
            clock.advance(60.0)
            follower.take(abandoned.progress())
    assert not said


def left_alone(
    command: tuple[str, ...], server: PrivateRedis, variables: dict[str, str], folder: Path
) -> tuple[list[str], Ended]:
    """Have somebody watch a Redis that goes away: what is said of it, and how Ctrl-C ends it."""
    with start(*command, cwd=folder, extra=variables) as process, redis.Redis.from_url(server.url) as client:
        assert eventually(lambda: bool(client.pubsub_channels("bridge:run-news:*")))
        server.kill()
        assert process.stderr
        said: list[str] = []
        while not any("Redis is out of reach" in line for line in said):
            line = process.stderr.readline()
            assert line, said
            said.append(line)
        process.send_signal(signal.SIGINT)
        return said, finish(process)


@pytest.mark.parametrize("command", ["stamp", "watch"])
def test_who_watches_while_redis_is_away_is_told_so_and_how_to_come_back(command: str, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.md").write_text(str(number))
    with PrivateRedis() as server:
        variables = {"BRIDGE_REDIS_URL": server.url, "BRIDGE_CONTENT__ROOTS": str(tmp_path)}
        detached = run("stamp", ".", "--detach", "--json", cwd=tmp_path, extra=variables)
        name = detached.json["run_id"]
        words = ("watch", name) if command == "watch" else ("stamp", "--resume", name, ".")

        said, ended = left_alone(words, server, variables, tmp_path)

    assert said[-1].strip() == (
        "Redis is out of reach: it is tried again and again. What was submitted goes on when it is back."
    )
    assert ended.status == 130, ended.err
    assert ended.out == ""
    told = ended.err.splitlines()
    assert told[0].startswith("3 files: 0 succeeded, 0 failed, 3 unfinished, 0 degraded in ")
    assert told[1] == (
        "Interrupted while Redis is out of reach: 0 of 3 files done when it last answered, "
        "3 files at workers or in the queue will go on."
    )
    assert told[2] == f"To watch it: bridge-tasks watch {name}"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("command", ["stamp", "watch"])
def test_a_command_that_is_told_to_end_says_what_ctrl_c_says(
    command: str, number: int, status: int, silent_redis: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_text("x")
    words = ("stamp", "a.md")
    if command == "watch":
        detached = run(*words, "--detach", "--json", cwd=tmp_path, extra=silent_redis)
        words = ("watch", detached.json["run_id"])
    with start(*words, cwd=tmp_path, extra=silent_redis) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("No worker answers")
        process.send_signal(number)
        ended = finish(process)
    assert ended.status == status
    assert "Interrupted: 0 of 1 file done, 1 file at workers or in the queue will go on.\n" in ended.err
    assert "To watch it: bridge-tasks watch " in ended.err


def test_time_that_is_over_while_redis_is_away_is_told_with_what_was_known(
    abandoned: runs.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = abandoned.progress()
    answers = iter([real, real])

    def progress(_: runs.Run) -> Any:
        if (answer := next(answers, None)) is None:
            raise redis.ConnectionError("gone")
        return answer

    monkeypatch.setattr(runs.Run, "progress", progress)
    assert watch(abandoned.id, 0.5, Manner(as_json=True)) == 1
    ended = capsys.readouterr()
    told = json.loads(ended.out)
    assert (told["run_id"], told["succeeded"], told["jobs"], told["jobs_left_out"]) == (abandoned.id, 10, [], 10)
    assert "Time is over while Redis is out of reach: 10 of 10 files done when it last answered" in ended.err


def test_files_are_called_as_they_were_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    names = Names([Path("link"), Path("/elsewhere/one.md")])

    assert names.of(str(tmp_path / "real" / "a.md")) == "link/a.md"
    assert names.of("/elsewhere/one.md") == "/elsewhere/one.md"
    assert names.of(str(tmp_path / "other" / "a.md")) == "other/a.md"
    assert names.of("/other/a.md") == "/other/a.md"
    assert names.of("inline (5 bytes)") == "inline (5 bytes)"
