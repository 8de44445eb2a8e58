"""A ledger on a Redis of its own, emptied for each test, and messages to put into it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
import redis

from bridge_tasks.broker.recording import run_script
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.ledger import Claim, JobLedger, JobRecord, Outcome, Submission, keys
from bridge_tasks.ledger.jobs import PUT
from bridge_tasks.ledger.workers import Workers
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.settings import LedgerSettings
from tests.never_suspending import finished

QUEUE = "bridge.metadata"
LEASE = 60.0


@pytest.fixture(scope="session")
def ledger_server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def client(ledger_server: PrivateRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(ledger_server.url) as client:
        client.flushdb()
        yield client


@dataclass
class Desk:
    """A ledger as producers and workers use it, in one hand."""

    client: redis.Redis
    settings: LedgerSettings = field(default_factory=LedgerSettings)

    def __post_init__(self) -> None:
        self.ledger = JobLedger(BlockingRedis(self.client), self.settings)
        self.workers = Workers(BlockingRedis(self.client))

    def put(
        self,
        name: str,
        *,
        rank: int = 0,
        job: str = "",
        part: str = "",
        item: str = "",
        submission: Submission | None = None,
    ) -> tuple[bool, str, str]:
        """Send a message, as a channel does: whether it was sent, who stands in its place, and its state."""
        more = submission.arguments() if submission else ()
        names = (keys.JOB + name, QUEUE, keys.OPEN + QUEUE)
        message = (name, envelope(name), QUEUE, "bridge.x", "cid", "/a.md", rank, 1000, job, part, item)
        sent, stands, state = run_script(self.client, PUT, names, (*message, *more))
        return bool(sent), stands.decode(), state.decode()

    def submit(
        self, name: str, *, key: str = "key", parts: tuple[str, ...] = (), **more: Any
    ) -> tuple[bool, str, str]:
        """Submit a task of its own, or the first message of a job of several parts."""
        told: dict[str, Any] = {"lasting": True, "force": False, "title": "bridge.x", "file": ""} | more
        job = told.pop("job", name)
        submission = Submission(job=job, key=key, parts=parts or (name,), **told)
        return self.put(name, job=job, part=name if parts else job, submission=submission)

    def begin(self, name: str, *, rank: int = 0, worker: str = "w1") -> Claim:
        return finished(self.ledger.begin(name, rank, worker, LEASE))

    def finish(self, name: str, outcome: Outcome | None = None) -> int | None:
        return finished(self.ledger.finish(name, outcome or Outcome("succeeded", {"answer": name})))

    def record(self, name: str) -> JobRecord:
        found = finished(self.ledger.find(name))
        assert found is not None, name
        return found

    def waiting(self) -> list[str]:
        """The task ids in the queue, first to be consumed first."""
        return [json.loads(raw)["headers"]["id"] for raw in reversed(self.client.lrange(QUEUE, 0, -1))]

    def fetch(self, worker: str) -> str:
        """Take a message from the queue and hold it, as a worker's main process does."""
        raw = self.client.rpop(QUEUE)
        assert isinstance(raw, bytes)
        message = json.loads(raw)
        tag = message["properties"]["delivery_tag"]
        self.client.hset(keys.UNACKED + worker, tag, json.dumps([message, "", QUEUE]))
        self.client.zadd(keys.UNACKED_INDEX + worker, {tag: 1.0})
        return str(message["headers"]["id"])

    def lives(self, worker: str) -> None:
        finished(self.workers.beat(worker))

    def dies(self, worker: str) -> None:
        self.client.delete(keys.WORKER + worker)


def envelope(name: str, **headers: Any) -> str:
    """Write a message as kombu's Redis transport keeps it."""
    return json.dumps(
        {
            "body": "W10=",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"id": name, "task": "bridge.x", "retries": 0} | headers,
            "properties": {
                "delivery_tag": str(uuid4()),
                "priority": 0,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
            },
        }
    )


@pytest.fixture
def desk(client: redis.Redis) -> Desk:
    desk = Desk(client)
    desk.lives("w1")
    return desk


@pytest.fixture
def desk_with(client: redis.Redis) -> Callable[..., Desk]:
    def make(**settings: Any) -> Desk:
        desk = Desk(client, LedgerSettings(**settings))
        desk.lives("w1")
        return desk

    return make


def pytest_configure(config: pytest.Config) -> None:
    # Once for all folders that ask: the same fixtures, and so the same Redis.
    config.pluginmanager.import_plugin("tests.workers")
