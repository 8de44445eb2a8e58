"""`bridge-tasks cache`, as typed: what it shows, what it changes for workers, and what it says when it cannot."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge_tasks.cache import RedisCache
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.cache.questions import about, fill, look, value
from tests.running_service import RunningService

AUTH = about("src/auth/login.py", "namespace:a", "operation:get_intelligence")


@pytest.fixture
def environment(
    onextree_services: dict[Any, RunningService], cache_server: PrivateRedis, store: redis.Redis, tmp_path: Path
) -> Iterator[dict[str, str]]:
    del store  # emptied
    service = onextree_services["service"]
    service.reset()
    yield {
        "BRIDGE_REDIS_URL": cache_server.url,
        "BRIDGE_ONEXTREE__URLS": service.url,
        "PYTHONPATH": str(Path.cwd()),
        "HOME": str(tmp_path),
        "COLUMNS": "120",
    }
    service.reset()


@pytest.fixture
def workers_cache(shared: SharedRedis) -> RedisCache:
    """The cache as a worker sees it."""
    return RedisCache(shared, "onextree")


def typed(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge_tasks.cli", "cache", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_stats_are_the_fleet_s(environment: dict[str, str], workers_cache: RedisCache) -> None:
    fill(workers_cache, AUTH)
    look(workers_cache, about("another"))
    seen = typed(environment, "stats", "--json")
    assert (seen.returncode, seen.stderr) == (0, "")
    stats = json.loads(seen.stdout)
    assert (stats["size"], stats["max_size"], stats["misses"], stats["fills"]) == (1, 1000, 2, 1)
    assert stats["shared"] is True
    shown = typed(environment, "stats").stdout
    assert "1 of 1000" in shown
    assert "Hit rate" in shown


def test_watching_goes_on_until_it_is_interrupted(environment: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-m",
        "bridge_tasks.cli",
        "cache",
        "stats",
        "--watch",
        "--interval",
        "0.1",
        "--json",
    ]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert [json.loads(watching.stdout.readline())["size"] for _ in range(3)] == [0, 0, 0]
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=10)
    assert watching.returncode == 130


def test_clear_forgets_every_answer_of_every_worker(
    environment: dict[str, str], workers_cache: RedisCache
) -> None:
    fill(workers_cache, AUTH)
    done = typed(environment, "clear", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"cleared": True})
    look(workers_cache, about("any other question"))
    assert value(look(workers_cache, AUTH)) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--prefix", "src/auth"],
        ["--namespace", "a"],
        ["--operation", "get_intelligence"],
        ["--tag", "namespace:a"],
        ["--prefix", "docs", "--namespace", "a"],
    ],
    ids=" ".join,
)
def test_invalidate_makes_void_what_is_named_and_nothing_else(
    arguments: list[str], environment: dict[str, str], workers_cache: RedisCache
) -> None:
    other = about("api", "namespace:b", "operation:navigate_tree")
    fill(workers_cache, AUTH)
    fill(workers_cache, other)
    assert typed(environment, "invalidate", *arguments).returncode == 0
    look(workers_cache, about("any other question"))
    assert value(look(workers_cache, AUTH)) is None
    assert value(look(workers_cache, other)) == "answer"


def test_warm_asks_and_tells(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "list").write_text("api\n# no\ntest\n")
    done = typed(environment, "warm", "auth", "--file", str(tmp_path / "list"), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"known": 3, "failed": 0})
    listed = typed({**environment, "BRIDGE_ONEXTREE__WARM": "auth,api"}, "warm")
    assert "2 known, 0 failed" in listed.stderr
    assert json.loads(typed(environment, "stats", "--json").stdout)["hits"] == 2


def test_warm_fails_where_the_service_does(environment: dict[str, str]) -> None:
    nobody = {
        **environment,
        "BRIDGE_ONEXTREE__URLS": "http://127.0.0.1:1",
        "BRIDGE_ONEXTREE__RETRY__ATTEMPTS": "1",
    }
    done = typed(nobody, "warm", "auth", "api", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"known": 0, "failed": 2})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["invalidate"], "say what"),
        (["invalidate", "--prefix", ""], "use `clear`"),
        (["warm"], "nothing to warm"),
        (["warm", "--file", "/nowhere"], "--file: the file cannot be read"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_wrong_input_is_told_in_one_line(arguments: list[str], words: str, environment: dict[str, str]) -> None:
    done = typed(environment, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_that_is_switched_off_is_said_to_be(environment: dict[str, str]) -> None:
    done = typed({**environment, "BRIDGE_ONEXTREE__CACHE": "false"}, "stats")
    assert done.returncode == 2
    assert "BRIDGE_ONEXTREE__CACHE" in done.stderr


@pytest.mark.parametrize("arguments", [["stats"], ["clear"], ["invalidate", "--tag", "x"]], ids=" ".join)
def test_without_redis_nothing_happened_and_people_are_told(
    arguments: list[str], environment: dict[str, str]
) -> None:
    done = typed({**environment, "BRIDGE_REDIS_URL": "redis://127.0.0.1:1/0"}, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert "out of reach" in done.stderr
    assert "Traceback" not in done.stderr
