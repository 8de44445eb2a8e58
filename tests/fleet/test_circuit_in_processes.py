"""The shared circuit in real processes: how many calls a dead service still gets, who probes, what a kill leaves.

The members of a fleet are in `members.py`; the service is the sandbox, which counts what arrives.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from bridge_tasks.runtime import Runtime
from bridge_tasks.sandbox.faults import Latency, Status
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.settings import MetadataSettings, Settings
from tests.circuits import eventually, quick
from tests.running_service import RunningService

MEMBERS = 32
CIRCUIT = "MetadataStampingService_circuit_breaker"
CONFIG = {"failure_threshold": 5, "recovery_timeout": 60.0, "half_open_max_calls": 3, "minimum_throughput": 5}
PACE = 0.02
PATIENCE = 40.0
"""Seconds; on a machine however busy."""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def redis_url(server: PrivateRedis) -> str:
    with quick(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture
def service(metadata_services: dict[str, RunningService]) -> Iterator[RunningService]:
    service = metadata_services["service"]
    service.reset()
    yield service
    service.reset()


def run(redis_url: str, scenario: str, **plan: Any) -> list[dict[str, Any]]:
    """Run a fleet to its end, and return what its members told."""
    whole = {"redis": redis_url, "scenario": scenario, "circuit": CIRCUIT, "config": CONFIG, **plan}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fleet.members", json.dumps(whole)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told


@contextmanager
def meanwhile(*steps: Callable[[], object]) -> Iterator[None]:
    """Take the steps in a thread, for the length of a block."""

    def take() -> None:
        for step in steps:
            step()

    thread = threading.Thread(target=take)
    thread.start()
    yield
    thread.join()


def total(told: list[dict[str, Any]], what: str) -> int:
    return sum(member[what] for member in told)


@pytest.mark.parametrize("push", [True, False], ids=["push", "no-push"])
def test_a_dead_service_gets_the_threshold_and_one_call_for_each_slot(
    push: bool, redis_url: str, service: RunningService
) -> None:
    service.inject(Status(code=500))
    told = run(
        redis_url,
        "calling",
        members=MEMBERS,
        push=push,
        service=service.url,
        seconds=1.5,
        patience=PATIENCE,
        pace=PACE,
    )
    arrived = len(service.asked("/health"))
    assert CONFIG["failure_threshold"] <= arrived <= CONFIG["failure_threshold"] + MEMBERS
    assert total(told, "sent") == arrived
    assert total(told, "changes") == 1
    assert all(member["refused"] > 0 for member in told)


@pytest.mark.parametrize("push", [True, False], ids=["push", "no-push"])
def test_a_service_that_dies_at_work_gets_no_more(push: bool, redis_url: str, service: RunningService) -> None:
    # Given a fleet whose successes wait to be told, when every further call fails
    with meanwhile(
        lambda: eventually(lambda: len(service.asked("/health")) >= 3 * MEMBERS),
        lambda: service.inject(Status(code=500)),
    ):
        told = run(
            redis_url,
            "calling",
            members=MEMBERS,
            push=push,
            service=service.url,
            seconds=1.5,
            patience=PATIENCE,
            pace=PACE,
        )
    failed = sum(record.status == 500 for record in service.asked("/health"))
    assert CONFIG["failure_threshold"] <= failed <= CONFIG["failure_threshold"] + MEMBERS
    assert total(told, "changes") == 1


def test_half_open_sends_exactly_the_permitted_probes(redis_url: str, service: RunningService) -> None:
    # Given a service that died, and that takes for ever when the circuit tries again
    service.inject(Status(code=500))
    with meanwhile(
        lambda: eventually(lambda: len(service.asked("/health")) >= 5),
        lambda: time.sleep(1.5),
        service.reset,
        lambda: service.inject(Latency(seconds=8.0)),
    ):
        run(
            redis_url,
            "calling",
            members=MEMBERS,
            service=service.url,
            seconds=6.0,
            patience=PATIENCE,
            pace=PACE,
            config={**CONFIG, "recovery_timeout": 4.0},
        )
    # Then of 32 processes that ask all the time, no more go through than may
    assert len(service.asked("/health")) == CONFIG["half_open_max_calls"]


@pytest.mark.parametrize("push", [True, False], ids=["push", "no-push"])
def test_sixty_four_that_fail_at_once_make_one_transition_and_one_event(push: bool, redis_url: str) -> None:
    told = run(redis_url, "tripping", members=64, push=push)
    assert total(told, "changes") == 1


def test_one_poisoned_worker_among_31_healthy_ones_does_not_open_the_circuit(
    redis_url: str, service: RunningService
) -> None:
    told = run(
        redis_url,
        "calling",
        members=MEMBERS,
        push=True,
        service=service.url,
        seconds=4.0,
        patience=PATIENCE,
        pace=0.1,
        poisoned=1,
    )
    poisoned, *healthy = told
    assert total(told, "changes") == 0
    assert total(healthy, "refused") == 0
    assert all(member["good"] > 0 for member in healthy)
    assert poisoned["asides"] == 1
    assert poisoned["failed"] <= CONFIG["failure_threshold"] + 1


def test_a_killed_probe_frees_its_place_within_the_lease_fifty_times(redis_url: str) -> None:
    lease, recovery = 0.2, 0.05
    config = {**CONFIG, "recovery_timeout": recovery, "half_open_max_calls": 1}
    told = run(redis_url, "killed_probes", kills=50, lease=lease, config=config)
    assert len(told) == 50
    assert max(member["lost"] for member in told) <= lease + recovery + 0.5
    assert min(member["taken"] for member in told) >= lease - 0.01, "the place was taken, for all of its lease"


def test_a_kill_in_the_middle_of_a_flush_leaves_nothing_stuck_fifty_times(redis_url: str) -> None:
    (told,) = run(redis_url, "killed_flushes", kills=50, lease=1.0)
    assert (told["granted"], told["state"], told["failures"]) == (True, "closed", 0)
    assert told["calls"] > 0


def test_a_runtime_s_circuits_are_shared_and_its_end_tells_what_was_put_by(
    redis_url: str, service: RunningService
) -> None:
    # Given a process that called the service three times, as workers do
    settings = Settings(redis_url=SecretStr(redis_url), metadata=MetadataSettings(urls=(service.url,)))
    runtime = Runtime(settings)
    for _ in range(3):
        runtime.run(runtime.metadata.generate_hash(b"hello"))
    # When it ends
    sent = runtime.metadata.circuit_breaker.metrics.success_count
    runtime.close()
    # Then another process finds all of it
    other = Runtime(settings)
    other.run(other.metadata.generate_hash(b"hello"))
    assert other.metadata.circuit_breaker.metrics.success_count > sent >= 3
    other.close()
