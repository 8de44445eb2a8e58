"""Several processes, one cache: who asks the service, and what happens to those who are killed or cut off."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Self

import pytest
import redis

from bridge_tasks.resilience.policy.caching import CacheRules
from bridge_tasks.sandbox.faults import Hang, Latency, Status
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.cache.conftest import connection
from tests.running_service import RunningService

pytestmark = pytest.mark.fleet

PROCESSES, THREADS = 8, 8
KILLS = 50
LEASE = 0.25
PROGRAM = Path(__file__).with_name("one_process.py")


class Member:
    """One process of the fleet."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments],
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(10)

    def tell(self, context: str, threads: int = THREADS) -> None:
        """Have as many threads ask as told."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"context": context, "threads": threads}) + "\n")
        self._process.stdin.flush()

    def heard(self) -> dict[str, Any]:
        """Wait for its next line."""
        assert self._process.stdout is not None
        line: dict[str, Any] = json.loads(self._process.stdout.readline())
        return line

    def answers(self) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = self.heard()["answers"]
        return answers

    def child(self, context: str) -> int:
        """Have a child of it ask, and return the child's pid."""
        self.tell(context, 0)
        child: int = self.heard()["child"]
        return child


@pytest.fixture
def service(onextree_services: dict[Any, RunningService]) -> Iterator[RunningService]:
    service = onextree_services["service"]
    service.reset()
    yield service
    service.reset()


@pytest.fixture
def environment(service: RunningService, cache_server: PrivateRedis, store: redis.Redis) -> dict[str, str]:
    del store  # emptied
    return {
        "BRIDGE_REDIS_URL": cache_server.url,
        "BRIDGE_ONEXTREE__URLS": service.url,
        "BRIDGE_ONEXTREE__RETRY__ATTEMPTS": "1",
    }


@contextmanager
def fleet(size: int, environment: dict[str, str], *, patient: bool = True) -> Iterator[list[Member]]:
    """Where Redis is well, it shall count as well on a busy machine, too: `patient`."""
    with ExitStack() as running:
        arguments = ["patient"] if patient else []
        members = [running.enter_context(Member(environment, *arguments)) for _ in range(size)]
        for member in members:
            assert member.heard() == {"ready": True}
        yield members


def asked(service: RunningService) -> int:
    return len(service.asked("/intelligence"))


def all_answers(members: list[Member], context: str, threads: int = THREADS) -> list[dict[str, Any]]:
    for member in members:
        member.tell(context, threads)
    return [answer for member in members for answer in member.answers()]


def test_64_callers_in_8_processes_with_one_question_make_one_request(
    environment: dict[str, str], service: RunningService, store: redis.Redis
) -> None:
    service.inject(Latency(seconds=0.3))
    with fleet(PROCESSES, environment) as members:
        answers = all_answers(members, "auth")
        assert answers == [{"analysis": "security_analysis", "stale": False}] * PROCESSES * THREADS
        assert asked(service) == 1
        # And again with an answer that is known: none.
        assert all_answers(members, "auth") == answers
        assert asked(service) == 1
    counts = store.hgetall("bridge:v1:cache-stats:{onextree.1}")
    assert int(counts[b"fills"]) == 1
    assert sum(int(counts.get(name, 0)) for name in (b"hits", b"near", b"misses")) == 2 * PROCESSES * THREADS


def test_an_outage_with_a_warm_cache_keeps_answering_and_costs_no_request_once_the_circuit_is_open(
    environment: dict[str, str], service: RunningService
) -> None:
    contexts = [f"auth {number}" for number in range(10)]
    short_lived = environment | {
        "BRIDGE_ONEXTREE__CACHE_TTL": "0.5",
        "BRIDGE_ONEXTREE__CACHE_RULES__NEAR_TTL": "0",
        "BRIDGE_ONEXTREE__CACHE_RULES__STALE_WHILE_REVALIDATE": "0.1",
        "BRIDGE_ONEXTREE__CACHE_RULES__PAUSE_AFTER_FAILURE": "0.2",
        "BRIDGE_ONEXTREE__CACHE_RULES__EARLY_REFRESH": "0",
    }
    with fleet(2, short_lived) as members:
        # One of them warms it for both: between two, an answer might grow stale.
        for context in contexts:
            all_answers(members[:1], context, 1)
        assert asked(service) == len(contexts)
        service.inject(Status(code=503))
        wait(0.7)
        for _ in range(3):  # enough failures for both processes' circuits
            for context in contexts:
                assert all(answer["stale"] for answer in all_answers(members, context, 2))
            wait(0.25)
        tried = asked(service)
        for _ in range(3):
            wait(0.25)
            for context in contexts:
                assert all(answer["stale"] for answer in all_answers(members, context, 2))
        assert asked(service) == tried


def test_a_process_killed_while_it_asks_costs_the_others_a_lease_and_nothing_else(
    environment: dict[str, str], service: RunningService
) -> None:
    # Only who is to be killed has so short a lease: those who live may need longer than that for their answer, on
    # a busy machine, and a lease that ran out meanwhile would rightly let another ask.
    short = environment | {"BRIDGE_ONEXTREE__CACHE_RULES__LEASE": str(LEASE)}
    with fleet(1, environment) as (waiter,), fleet(1, short) as (parent,):
        waiter.tell("before", 1)
        waiter.answers()
        waits = []
        for number in range(KILLS):
            context = f"auth {number}"
            service.reset()
            service.inject(Hang(count=1))
            victim = parent.child(context)
            until(lambda: asked(service) == 1)
            began = time.monotonic()
            waiter.tell(context, 2)
            os.kill(victim, signal.SIGKILL)
            assert waiter.answers() == [{"analysis": "security_analysis", "stale": False}] * 2
            waits.append(time.monotonic() - began)
            assert asked(service) == 2
    assert median(waits) < LEASE + 0.5
    assert max(waits) < CacheRules().lease, "nobody waited for a lease of those who live, or for a deadline"


@pytest.mark.parametrize("trouble", ["killed", "frozen", "read-only", "empty"])
def test_whatever_happens_to_redis_every_caller_is_answered(
    trouble: str, environment: dict[str, str], service: RunningService
) -> None:
    with (
        PrivateRedis() as server,
        fleet(2, environment | {"BRIDGE_REDIS_URL": server.url}, patient=False) as members,
    ):
        all_answers(members, "auth")
        before = asked(service)
        if trouble == "killed":
            server.kill()
        elif trouble == "frozen":
            server.pause()
        else:
            with connection(server, 1.0) as client:
                client.flushall()
                if trouble == "read-only":
                    client.replicaof("127.0.0.1", "1")
        for context in ("auth", "api", "test"):
            assert all("error" not in answer for answer in all_answers(members, context))
        # Alone, each process asks once for itself.
        assert asked(service) <= before + 3 * len(members)
        if trouble == "frozen":
            server.resume()


def until(check: Any, seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends, "it never came to pass"
        time.sleep(0.005)


def wait(seconds: float) -> None:
    """Let real time pass: what is waited for is in Redis, whose clock is its own."""
    time.sleep(seconds)
