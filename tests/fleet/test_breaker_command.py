"""`bridge-tasks breaker`, as typed: what it shows, what it does to workers, and what it says when it cannot."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_tasks.driver import BlockingRedis
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig, Outcome, Permit, Rejection
from bridge_tasks.resilience.state.circuit_script import key
from bridge_tasks.resilience.state.redis_circuit import RedisCircuitStore
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.circuits import quick
from tests.never_suspending import finished

METADATA = "MetadataStampingService_circuit_breaker"
ONEXTREE = "OnexTreeService_circuit_breaker"


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def environment(server: PrivateRedis, tmp_path: Path) -> dict[str, str]:
    with quick(server.url) as client:
        client.flushall()
    return {
        "BRIDGE_REDIS_URL": server.url,
        "PYTHONPATH": str(Path.cwd()),
        "HOME": str(tmp_path),
        "COLUMNS": "200",
    }


@pytest.fixture
def worker(server: PrivateRedis) -> Iterator[RedisCircuitStore]:
    """The metadata service's circuit as a worker sees it."""
    with quick(server.url) as client:
        yield RedisCircuitStore(METADATA, CircuitBreakerConfig(), SharedRedis(BlockingRedis(client)))


def typed(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge_tasks.cli", "breaker", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def circuits(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return {circuit["name"]: circuit for circuit in json.loads(done.stdout.splitlines()[-1])["circuits"]}


def ask(worker: RedisCircuitStore) -> Permit | Rejection:
    worker.doubt()
    return finished(worker.admit(31.0))[0]


def test_the_list_shows_both_services_and_leaves_no_trace(
    environment: dict[str, str], server: PrivateRedis
) -> None:
    shown = circuits(typed(environment, "list", "--json"))
    assert {name: circuit["state"] for name, circuit in shown.items()} == {METADATA: "closed", ONEXTREE: "closed"}
    with quick(server.url) as client:
        assert not client.exists(key(METADATA))


def test_the_list_shows_why_a_circuit_is_open_and_until_when(
    environment: dict[str, str], worker: RedisCircuitStore
) -> None:
    for _ in range(5):
        decision = ask(worker)
        assert isinstance(decision, Permit)
        finished(worker.record(decision, Outcome.FAILURE))
    shown = circuits(typed(environment, "list", "--json"))[METADATA]
    assert (shown["state"], shown["failures"], shown["held_by_hand"]) == ("open", 5, False)
    assert 0 < shown["retry_after"] <= 60
    for_eyes = typed(environment, "list").stdout
    assert "failure_threshold failures in a row" in for_eyes
    assert "open" in for_eyes


def test_on_80_columns_a_circuit_is_shown_by_the_name_that_one_types(
    environment: dict[str, str], worker: RedisCircuitStore
) -> None:
    # Given the longest that there is to say
    typed(environment, "open", "onextree")
    for _ in range(5):
        decision = ask(worker)
        assert isinstance(decision, Permit)
        finished(worker.record(decision, Outcome.FAILURE))
    narrow = {**environment, "COLUMNS": "80"}
    heading, *shown = typed(narrow, "list").stdout.splitlines()
    assert heading.split()[:2] == ["Circuit", "State"]
    assert [line.split()[:2] for line in shown if line[:1].strip()] == [["metadata", "open"], ["onextree", "open"]]
    assert max(map(len, [heading, *shown])) <= 80
    # And that name works it
    assert typed(narrow, "reset", "metadata").stdout.splitlines()[1].split()[:2] == ["metadata", "closed"]


def test_opened_it_stays_open_for_all_workers_until_it_is_reset(
    environment: dict[str, str], worker: RedisCircuitStore
) -> None:
    shown = circuits(typed(environment, "open", "metadata", "--json"))[METADATA]
    assert (shown["state"], shown["held_by_hand"], shown["retry_after"]) == ("open", True, None)
    assert isinstance(ask(worker), Rejection)
    assert circuits(typed(environment, "reset", "--json"))[METADATA]["state"] == "closed"
    assert isinstance(ask(worker), Permit)


def test_opened_to_recover_it_says_when(environment: dict[str, str]) -> None:
    shown = circuits(typed(environment, "open", "onextree", "--recover", "--json"))[ONEXTREE]
    assert (shown["state"], shown["held_by_hand"]) == ("open", False)
    assert 0 < shown["retry_after"] <= 60


def test_held_closed_no_failure_opens_it(environment: dict[str, str], worker: RedisCircuitStore) -> None:
    assert circuits(typed(environment, "close", "metadata", "--hold", "--json"))[METADATA]["held_by_hand"]
    for _ in range(20):
        decision = ask(worker)
        assert isinstance(decision, Permit)
        finished(worker.record(decision, Outcome.FAILURE))
    assert not circuits(typed(environment, "close", "metadata", "--json"))[METADATA]["held_by_hand"]


def test_a_name_that_is_none_is_told_with_those_that_are(environment: dict[str, str]) -> None:
    done = typed(environment, "open", "metadat")
    assert done.returncode == 2
    assert METADATA in done.stderr


def test_without_redis_it_says_so_and_fails(environment: dict[str, str]) -> None:
    for arguments in (("list",), ("open", "metadata"), ("reset",)):
        done = typed({**environment, "BRIDGE_REDIS_URL": "redis://127.0.0.1:9/0"}, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "out of reach" in done.stderr
        assert "Traceback" not in done.stderr


def test_watching_goes_on_until_ctrl_c(environment: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-m",
        "bridge_tasks.cli",
        "breaker",
        "list",
        "--watch",
        "--interval",
        "0.1",
        "--json",
    ]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.returncode == 130
    assert len(seen) == 3
