"""Real workers, a real Redis and services that really die: no job pays for an outage, and none waits too long."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from fastapi import FastAPI

from bridge_tasks import runtime
from bridge_tasks.app import app
from bridge_tasks.cli.health import health
from bridge_tasks.resilience.policy.breaker import Order
from bridge_tasks.sandbox import metadata_service, onextree_service
from bridge_tasks.sandbox.control import Controls, controls_of
from bridge_tasks.sandbox.faults import Status
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.sandbox.server import running
from tests.tasks.sending import inline
from tests.workers import PATIENCE, QUEUES, database, eventually, json_lines, orchestrating

pytestmark = pytest.mark.fleet

POOLS = ("prefork", "threads", "solo")
METADATA, ONEXTREE, BULK = QUEUES

SHORT = {
    "BRIDGE_LOG__JSON_LINES": "true",
    "BRIDGE_METADATA__RETRY__INITIAL": "0.05",
    "BRIDGE_METADATA__BREAKER__RECOVERY_TIMEOUT": "0.5",
    "BRIDGE_METADATA__BREAKER__MAX_RECOVERY_TIMEOUT": "1",
    "BRIDGE_METADATA__BREAKER__RAMP_SECONDS": "0.5",
}
"""Everything as it is by default, but an open circuit that is probed after a second and not after minutes."""

DEAD = Status(code=503, path="/hash")


@dataclass(frozen=True, slots=True)
class Stack:
    """A worker, its database, and the service that dies."""

    pool: str
    environment: Mapping[str, str]
    worker: LocalProcess
    service: Controls
    redis: redis.Redis

    def waiting(self, queue: str = METADATA) -> int:
        return int(self.redis.llen(queue))

    def held(self) -> int:
        """The messages that a worker has taken and not acknowledged."""
        return sum(int(self.redis.hlen(key)) for key in self.redis.scan_iter("*unacked*", _type="hash"))

    def lines(self, event: str, **having: Any) -> list[dict[str, Any]]:
        said = json_lines(self.worker.log.read_text())
        return [line for line in said if line.get("event") == event and having.items() <= line.items()]

    def order(self, order: Order) -> None:
        """What `bridge-tasks breaker` does."""
        opened = runtime.current()
        opened.run(opened.metadata.circuit_breaker._store.order(order))

    def consumed(self) -> set[str]:
        replies = app.control.broadcast("active_queues", reply=True, timeout=1.0) or []
        return {queue["name"] for reply in replies for queues in reply.values() for queue in queues}

    def settles_at(self, *queues: str) -> bool:
        return bool(eventually(lambda: self.consumed() == set(queues)))


def send(count: int, text: str) -> list[str]:
    """Put hash jobs into the queue whose results nobody asks for; their ids."""
    with app.producer_or_acquire() as producer:
        return [
            app.send_task(
                "bridge.generate_hash",
                kwargs={"content": inline(f"{text} {number}")},
                producer=producer,
                ignore_result=True,
            ).id
            for number in range(count)
        ]


def answered(text: str) -> bool:
    """Whether a job in OnexTree's queue is done: the worker works."""
    task = app.send_task("bridge.get_intelligence", kwargs={"context": text})
    return bool(task.get(timeout=PATIENCE)["context"] == text)


@contextmanager
def working(
    pool: str, url: str, services: Sequence[FastAPI], directory: Path, *options: str, **environment: str
) -> Iterator[Stack]:
    """A worker with two services of its own, and this process as their orchestrator."""
    with ExitStack() as stack:
        metadata, onextree = (stack.enter_context(running(service)) for service in services)
        ours = {
            "BRIDGE_REDIS_URL": url,
            "BRIDGE_METADATA__URLS": metadata,
            "BRIDGE_ONEXTREE__URLS": onextree,
            **SHORT,
            **environment,
        }
        command = [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "-P", pool, "-c", "2"]
        worker = LocalProcess(
            [*command, "-n", f"{pool}@%h", "-l", "INFO", "--without-mingle", "--without-gossip", *options],
            directory=directory,
            name=pool,
            environment={**os.environ, **ours},
        )
        stack.enter_context(worker)
        stack.enter_context(orchestrating(ours))
        worker.wait_ready(lambda: " ready." in worker.log.read_text(), PATIENCE)
        with redis.Redis.from_url(url) as client:
            yield Stack(pool, ours, worker, controls_of(services[0]), client)


@pytest.fixture
def services(tmp_path: Path) -> tuple[FastAPI, FastAPI]:
    return metadata_service.create_app("service", ":memory:"), onextree_service.create_app("service", tmp_path)


@pytest.fixture(params=POOLS)
def stack(
    request: pytest.FixtureRequest, redis_url: str, services: tuple[FastAPI, FastAPI], tmp_path: Path
) -> Iterator[Stack]:
    number = 10 + POOLS.index(request.param)
    with redis.Redis.from_url(database(redis_url, number)) as client:
        client.flushdb()
    with working(request.param, database(redis_url, number), services, tmp_path) as started:
        yield started


def test_jobs_wait_in_the_queue_while_the_circuit_is_open_and_are_done_when_the_service_is_well(
    stack: Stack,
) -> None:
    stack.service.faults.add(DEAD)
    jobs = send(60, "a job")
    assert eventually(lambda: len(stack.lines("queue paused", queue=METADATA)) >= 3), "opened, and probed in vain"

    assert eventually(lambda: stack.held() == 0 and stack.waiting() == len(jobs))
    assert len(stack.lines("job put back")) < len(jobs) / 3, "who waits is not called up, to be sent away"
    assert answered("the other service's queue flows")

    stack.service.faults.clear()
    assert eventually(lambda: len(stack.lines("job succeeded", task="bridge.generate_hash")) == len(jobs))
    assert eventually(lambda: stack.held() == stack.waiting() == 0)
    assert not stack.lines("job failed")
    assert stack.lines("queue resumed", queue=METADATA)


def test_a_circuit_held_open_by_hand_keeps_its_queues_until_it_is_released(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.order(Order.HOLD)
    assert stack.settles_at(ONEXTREE)
    jobs = send(5, "held")
    assert answered("the worker works")
    assert stack.waiting() == len(jobs)
    assert stack.service.records.counts()["total"] == 0, "nobody asked the service"

    assert health(as_json=True) == 1
    workers = json.loads(capsys.readouterr().out)["workers"]
    assert set(workers["paused"]) == {METADATA, BULK}
    assert f"{METADATA} paused, until bridge-tasks breaker reset" in workers["detail"]

    app.control.cancel_consumer(BULK)
    stack.order(Order.RESET)
    assert eventually(lambda: len(stack.lines("job succeeded", task="bridge.generate_hash")) == len(jobs))
    assert stack.settles_at(METADATA, ONEXTREE), "what an operator cancelled is left to the operator"


def test_a_worker_for_some_queues_pauses_and_resumes_those_and_no_other(
    redis_url: str, services: tuple[FastAPI, FastAPI], tmp_path: Path
) -> None:
    url = database(redis_url, 13)
    with working("threads", url, services, tmp_path, "-Q", f"{BULK},{ONEXTREE}") as stack:
        assert stack.settles_at(BULK, ONEXTREE)
        stack.order(Order.HOLD)
        assert stack.settles_at(ONEXTREE)
        stack.order(Order.RESET)
        assert stack.settles_at(BULK, ONEXTREE)


def test_who_does_not_want_queues_paused_says_so(
    redis_url: str, services: tuple[FastAPI, FastAPI], tmp_path: Path
) -> None:
    with working("solo", database(redis_url, 14), services, tmp_path, BRIDGE_TASK__PAUSE="onextree") as stack:
        stack.order(Order.HOLD)
        send(1, "a job")
        assert eventually(lambda: stack.lines("job put back")), "it is taken, and sent away"
        assert not stack.lines("queue paused")


def test_a_pause_outlasts_a_restart_of_redis(services: tuple[FastAPI, FastAPI], tmp_path: Path) -> None:
    with PrivateRedis(append_only=True) as server, working("prefork", server.url, services, tmp_path) as stack:
        stack.order(Order.HOLD)
        assert stack.settles_at(ONEXTREE)
        jobs = send(5, "a job")
        server.kill()
        assert eventually(lambda: "Connection to broker lost" in stack.worker.log.read_text())
        server.start()

        with orchestrating(stack.environment):  # anew: this process's connections died as well
            assert answered("the worker works")
            assert stack.consumed() == {ONEXTREE}
            assert stack.waiting() == len(jobs)
            stack.order(Order.RESET)
            assert eventually(lambda: len(stack.lines("job succeeded", task="bridge.generate_hash")) == len(jobs))


@pytest.mark.timeout(300)
def test_an_outage_with_two_thousand_waiting_jobs_costs_none_of_them_an_attempt(
    redis_url: str, services: tuple[FastAPI, FastAPI], tmp_path: Path
) -> None:
    with working("threads", database(redis_url, 15), services, tmp_path) as stack:
        stack.service.faults.add(DEAD)
        finders = send(5, "who finds out")
        assert eventually(lambda: stack.lines("queue paused", queue=METADATA))
        jobs = set(send(2000, "who waits"))
        probed = "a probe failed"
        assert eventually(lambda: len(stack.lines("queue paused", queue=METADATA, cause=probed)) >= 4)
        assert stack.waiting() >= len(jobs)

        stack.service.faults.clear()
        assert eventually(lambda: stack.waiting() == stack.held() == 0, 150)

    assert len(stack.lines("job succeeded")) == len(jobs) + len(finders)
    ended = [line for line in stack.lines("job succeeded") if line["task_id"] in jobs]
    assert {line["attempt"] for line in ended} == {1}, "none used an attempt: its retries stayed 0"
    assert not stack.lines("job failed")
    assert len(stack.lines("job put back")) < len(jobs) / 4
