"""A job whose call was kept back: it waits in the queue, not in a worker, and loses no attempt by it."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from bridge_tasks import events, runtime
from bridge_tasks.app import app
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.errors import RateLimited
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.fleet import SECOND, News
from bridge_tasks.resilience.state.local_limits import LocalLimitStore
from bridge_tasks.resilience.state.redis_limits import RedisLimitStore
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.sandbox.refusals import Dialect
from bridge_tasks.settings import load
from bridge_tasks.tasks import generate_hash
from tests.never_suspending import finished
from tests.running_service import RunningService
from tests.stopped_clock import StoppedClock
from tests.workers import PATIENCE, Pool, eventually

CONTENT = {"kind": "inline", "data": base64.b64encode(b"hello").decode()}


def hold(redis_url: str, seconds: int) -> None:
    """Do what any process of the fleet does when MetadataStampingService asks it for patience."""
    config = BudgetConfig()
    with redis.Redis.from_url(redis_url) as client:
        store = RedisLimitStore(
            "MetadataStampingService",
            config,
            SharedRedis(BlockingRedis(client)),
            local=LocalLimitStore(config, StoppedClock()),
        )
        assert finished(store.pulse(News(hold=seconds * SECOND))).hold == seconds * SECOND


def send(cid: str) -> Any:
    return app.send_task("bridge.generate_hash", kwargs={"content": CONTENT}, headers={"x-correlation-id": cid})


def test_a_worker_hears_of_a_busy_service_from_others_and_its_jobs_wait_in_the_queue_without_losing_attempts(
    prefork: Pool,
) -> None:
    # Given a worker, and another process that was told to leave the service alone for five seconds
    send("before").get(timeout=PATIENCE)
    hold(prefork.redis_url, 5)
    # When jobs come (in this worker no countdown is longer than two seconds)
    jobs: dict[str, Any] = {}

    def one_waits() -> str | None:
        cid = f"waiting-{len(jobs)}"
        jobs[cid] = send(cid)
        return next((cid for cid in jobs if prefork.lines(correlation_id=cid, event="job put back")), None)

    waiting = eventually(one_waits, 4.0)
    # Then one that meets the hold comes back until it is over, and is done in its first attempt
    assert waiting
    for job in jobs.values():
        assert job.get(timeout=PATIENCE)["file_size_bytes"] == 5
    told = eventually(lambda: prefork.lines(correlation_id=waiting, event="job succeeded"))
    assert told
    assert told[0]["attempt"] == 1
    back = prefork.lines(correlation_id=waiting, event="job put back")
    assert len(back) >= 2
    assert {line["attempt"] for line in back} == {1}
    assert all("asked to be left alone" in line["error"] for line in back)
    assert all(line["milliseconds"] < 1000 for line in back), "no worker slot was blocked"
    assert len(prefork.sandbox.asked(waiting, "/hash")) == 1


@pytest.fixture
def one_hash_a_minute(
    metadata_services: dict[Dialect, RunningService], monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningService]:
    """This process set up for a service that it may ask once a minute, and without Redis."""
    service = metadata_services["service"]
    service.reset()
    for name, value in {
        "BRIDGE_REDIS_URL": "redis://127.0.0.1:1/0",
        "BRIDGE_METADATA__URLS": service.url,
        "BRIDGE_METADATA__LIMITS__PER_MINUTE__GENERATE_HASH": "1",
        "BRIDGE_TASK__RETRY__ATTEMPTS": "3",
    }.items():
        monkeypatch.setenv(name, value)
    runtime.close()
    load.cache_clear()
    yield service
    runtime.close()
    load.cache_clear()
    service.reset()


def test_run_without_a_queue_a_job_that_would_have_to_wait_fails_after_its_attempts(
    one_hash_a_minute: RunningService, facts: list[events.Event]
) -> None:
    assert generate_hash.apply(kwargs={"content": CONTENT}).get()["file_size_bytes"] == 5
    with pytest.raises(RateLimited) as limited:
        generate_hash.apply(kwargs={"content": CONTENT}).get()
    assert 50 < (limited.value.retry_after or 0) <= 61
    assert [(fact.outcome, fact.attempt) for fact in facts if isinstance(fact, events.JobFinished)] == [
        ("succeeded", 1),
        ("retried", 1),
        ("retried", 2),
        ("failed", 3),
    ]
    assert len(one_hash_a_minute.asked("/hash")) == 1
