import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from redis import Redis

from bridge_tasks.cli.health import masked
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.cli.command import NO_REDIS, environment, finish, run, seconds_to_load, start

COMMANDS = (
    *("demo", "up", "worker", "stamp", "watch", "cancel", "validate"),
    *("status", "dead", "health", "sandbox"),
)


@pytest.fixture
def silent_redis(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a deployment that has a Redis, and nobody who works."""
    with PrivateRedis() as redis:
        yield {"BRIDGE_REDIS_URL": redis.url, "BRIDGE_CONTENT__ROOTS": str(tmp_path)}


def test_the_help_lists_every_command(tmp_path: Path) -> None:
    shown = run("--help", cwd=tmp_path)
    assert shown.status == 0
    assert all(f" {command} " in shown.out for command in COMMANDS)


def test_help_loads_neither_celery_nor_pydantic_nor_the_sandbox(tmp_path: Path) -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import bridge_tasks.cli, sys; print(*sys.modules)"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"celery", "kombu", "pydantic", "httpx", "redis", "fastapi"} & set(loaded)


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["stamp"], {}, "Missing argument"),
        (["nonsense"], {}, "No such command"),
        (["stamp", "a", "--timeout", "0"], {}, "--timeout"),
        (["stamp", "a", "--correlation-id", "a\r\nb"], {}, "correlation_id: must be"),
        (["stamp", ".", "--namespace", "a b"], {"BRIDGE_CONTENT__ROOTS": "/"}, "namespace: "),
        (["stamp", ".", "--namespace", ""], {"BRIDGE_CONTENT__ROOTS": "/"}, "namespace: "),
        (["stamp", ".", "--context", "\x1b[2J"], {"BRIDGE_CONTENT__ROOTS": "/"}, "context: must not hold control"),
        (["validate", ".", "--namespace", "a b"], {"BRIDGE_CONTENT__ROOTS": "/"}, "namespace: "),
        (["health"], {"BRIDGE_REDIS_URL": "ftp://secret@host"}, "BRIDGE_REDIS_URL: "),
        (["up", "--root", "/nowhere"], {}, "/nowhere is not a directory"),
        (["up", "--pool", "gevent"], {}, "gevent"),
        (
            ["stamp", "file"],
            {},
            "Nothing is set up here: run bridge-tasks up in this directory, or set BRIDGE_CON",
        ),
        (["validate", "file", "missing"], {}, "missing: does not exist"),
        (["worker", "-Q", "x"], {}, "go after --: bridge-tasks worker -- -Q"),
    ],
)
def test_wrong_input_is_one_clear_message_and_status_2(
    arguments: list[str], variables: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("content")
    ended = run(*arguments, cwd=tmp_path, extra={"BRIDGE_REDIS_URL": NO_REDIS, **variables})
    assert ended.status == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert "secret" not in ended.err
    assert "\x1b" not in ended.err


def test_a_redis_that_is_down_is_one_clear_line_and_status_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    loading = seconds_to_load()
    began = time.monotonic()
    ended = run("stamp", "file", cwd=tmp_path, extra={"BRIDGE_REDIS_URL": NO_REDIS, "BRIDGE_CONTENT__ROOTS": "/"})
    assert ended.status == 1
    assert ended.err.startswith("bridge-tasks: Redis is out of reach")
    assert len(ended.err.splitlines()) == 1
    assert time.monotonic() - began < loading + 10


def test_health_says_what_is_down_within_seconds(tmp_path: Path) -> None:
    extra = {
        "BRIDGE_REDIS_URL": NO_REDIS,
        "BRIDGE_METADATA__URLS": "http://127.0.0.1:1",
        "BRIDGE_ONEXTREE__URLS": "http://127.0.0.1:1",
    }
    loading = seconds_to_load()
    began = time.monotonic()
    ended = run("health", "--json", cwd=tmp_path, extra=extra)
    assert ended.status == 1
    assert [ended.json[name]["address"] for name in ("broker", "metadata")] == [NO_REDIS, "http://127.0.0.1:1"]
    assert {name: part["healthy"] for name, part in ended.json.items() if name != "healthy"} == dict.fromkeys(
        ("broker", "results", "workers", "jobs", "metadata", "onextree"), False
    )
    assert time.monotonic() - began < loading + 10


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://me:se/cr@et@host/0?ssl_cert_reqs=none&password=secret", "rediss://me:**@host/0"),
        ("sentinel://:secret@a:1;sentinel://:secret@b:2", "sentinel://:**@a:1;sentinel://:**@b:2"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_health_does_not_wait_for_a_redis_that_hangs(tmp_path: Path) -> None:
    with PrivateRedis() as redis:
        redis.pause()
        loading = seconds_to_load()
        began = time.monotonic()
        ended = run("health", cwd=tmp_path, extra={"BRIDGE_REDIS_URL": redis.url})
        assert ended.status == 1
        assert "no answer within" in ended.out
        assert time.monotonic() - began < loading + 10


def test_when_its_time_is_over_stamp_says_what_goes_on(silent_redis: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    ended = run("stamp", "file", "--json", "--timeout", "0.5", cwd=tmp_path, extra=silent_redis)
    assert ended.status == 1
    (job,) = ended.json["jobs"]
    assert (job["path"], job["state"], job["error"]) == ("file", "unfinished", "sent, not ended: it goes on")
    counts = [ended.json[count] for count in ("succeeded", "failed", "unfinished", "interrupted")]
    assert counts == [0, 0, 1, False]


def test_without_a_worker_stamp_says_so_and_ctrl_c_leaves_the_jobs_in_the_queue(
    silent_redis: dict[str, str], tmp_path: Path
) -> None:
    for number in range(250):
        (tmp_path / f"{number}.txt").write_text("content")
    options = ("--correlation-id", "night-7")
    with start("stamp", ".", *options, cwd=tmp_path, extra=silent_redis) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("No worker answers")
        process.send_signal(signal.SIGINT)
        ended = finish(process)
    with Redis.from_url(silent_redis["BRIDGE_REDIS_URL"]) as queues:
        sent = queues.llen("bridge.bulk")
    assert ended.status == 130
    assert sent == 3  # chunks of a hundred
    assert "Interrupted: 0 of 250 files done, 250 files at workers or in the queue will go on.\n" in ended.err
    assert "250 unfinished" in ended.err
    assert "To watch it: bridge-tasks watch " in ended.err
    assert "Correlation id: night-7" in ended.err
    assert len(ended.out.splitlines()) == 2  # the heading; all are alike


def test_the_sandbox_names_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run("sandbox", "--metadata-port", "0", "--onextree-port", port, cwd=tmp_path)
    assert ended.status == 2
    assert f"port {port}: Address already in use; --onextree-port chooses another" in ended.err
    assert "usage" not in ended.err.lower()


def test_the_version_is_shown(tmp_path: Path) -> None:
    shown = run("--version", cwd=tmp_path)
    assert (shown.status, shown.out) == (0, f"bridge-tasks {version('bridge-tasks')}\n")


def test_the_sandbox_runs_in_the_foreground_until_it_is_told_to_end(tmp_path: Path) -> None:
    ports = ("--metadata-port", "0", "--onextree-port", "0")
    with start("sandbox", "--tree", tmp_path, *ports, cwd=tmp_path) as process:
        assert process.stdout
        urls = json.loads(process.stdout.readline())
        answers = [httpx.get(f"{url}/health").status_code for url in urls.values()]
        process.send_signal(signal.SIGTERM)
        ended = finish(process)
    assert answers == [200, 200]
    assert ended.status == 0


@pytest.mark.parametrize(("named", "name"), [(("--hostname", "second@%h"), "second"), ((), r"worker-\d+")])
def test_the_worker_passes_arguments_on_to_celery(named: tuple[str, ...], name: str, tmp_path: Path) -> None:
    options = ("--pool", "solo", "--", *named, "--without-mingle")
    with PrivateRedis() as redis:
        extra = {"BRIDGE_REDIS_URL": redis.url}
        with start("worker", *options, cwd=tmp_path, extra=extra) as process:
            assert process.stderr
            ready = any("ready." in line for line in process.stderr)
            names = run("health", "--json", cwd=tmp_path, extra=extra).json["workers"]["names"]
            process.send_signal(signal.SIGTERM)
            ended = finish(process)
    assert ready
    assert [re.fullmatch(name, told.split("@")[0]) is not None for told in names] == [True], names
    assert ended.status == 0
    assert "bridge.bulk" in ended.out
