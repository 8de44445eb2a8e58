"""An asyncio program that awaits jobs: one subscription, no lost wake-ups, nothing left behind."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from bridge_tasks import AsyncBridge, loop_line
from bridge_tasks.async_bridge import AsyncJob
from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.errors import ContentUnavailable, InvalidRequest, JobCancelled, JobUnknown
from bridge_tasks.ledger import JobLedger, Outcome, keys
from bridge_tasks.ledger.waiting import CHANNEL
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.settings import load
from bridge_tasks.tasks import generate_hash, get_stamp
from tests.tasks.sending import inline
from tests.workers import orchestrating

MANY = 1000


@pytest.fixture(scope="module")
def running() -> Iterator[PrivateRedis]:
    with PrivateRedis(append_only=True) as started:
        yield started


@pytest.fixture
def server(running: PrivateRedis) -> Iterator[PrivateRedis]:
    with redis.Redis.from_url(running.url) as client:
        client.flushall()
    with orchestrating({"BRIDGE_REDIS_URL": running.url}):
        yield running


@pytest.fixture
def bystander(server: PrivateRedis) -> Iterator[redis.Redis]:
    """A client that looks on, and outlasts a restart."""
    patient = Retry(ConstantBackoff(0.05), 400)
    with redis.Redis.from_url(server.url, decode_responses=True, retry=patient) as client:
        yield client


class Worker:
    """Whoever ends jobs: tells the ledger, as a worker does."""

    def __init__(self, client: redis.Redis) -> None:
        self._ledger = JobLedger(BlockingRedis(client), load().ledger)

    def end(self, *jobs: AsyncJob) -> None:
        for job in jobs:
            drive(self._ledger.finish(job.id, Outcome("succeeded", job.id)))

    def fail(self, job: AsyncJob) -> None:
        drive(self._ledger.finish(job.id, Outcome("failed", error=ContentUnavailable("it is gone"))))


@pytest.fixture
def worker(bystander: redis.Redis) -> Worker:
    return Worker(bystander)


def hashing(text: str) -> Any:
    return generate_hash.s(content=inline(text))


async def submitted(bridge: AsyncBridge, number: int) -> list[AsyncJob]:
    return list(await asyncio.gather(*(bridge.submit(hashing(f"job {one}")) for one in range(number))))


def subscriptions(bystander: redis.Redis) -> tuple[int, int]:
    """Channels on which ends are told, and connections that listen."""
    channels = bystander.pubsub_channels(f"{CHANNEL}*")
    return len(channels), len([one for one in bystander.client_list() if one["sub"] != "0"])


async def until(check: Any, seconds: float = 20.0) -> Any:
    """Poll in the event loop until `check` gives something true; the last answer when the time is over."""
    ends = asyncio.get_running_loop().time() + seconds
    while not (answer := check()) and asyncio.get_running_loop().time() < ends:  # noqa: ASYNC110 - Redis's news
        await asyncio.sleep(0.01)
    return answer


async def test_a_thousand_jobs_are_awaited_by_one_subscription_which_a_killed_redis_does_not_end(
    server: PrivateRedis, bystander: redis.Redis, worker: Worker
) -> None:
    threads = threading.active_count()
    async with AsyncBridge() as bridge:
        jobs = await submitted(bridge, MANY)
        assert bystander.llen("bridge.metadata") == MANY
        awaiting = [asyncio.create_task(job.result()) for job in jobs]
        assert await until(lambda: bystander.hexists(keys.JOB + jobs[-1].id, "to"))
        assert subscriptions(bystander) == (1, 1)
        assert threading.active_count() <= threads + 2, "one that sends, and no thread for each job"

        await asyncio.to_thread(worker.end, *jobs[:300])
        assert await asyncio.wait_for(asyncio.gather(*awaiting[:300]), 20) == [job.id for job in jobs[:300]]
        server.kill()
        server.start()  # from this thread: the kernel ends a child with the thread that started it
        await asyncio.to_thread(worker.end, *jobs[300:600])  # perhaps before anybody listens again
        assert await asyncio.wait_for(asyncio.gather(*awaiting[300:600]), 20)
        await asyncio.to_thread(worker.end, *jobs[600:])

        assert await asyncio.wait_for(asyncio.gather(*awaiting), 20) == [job.id for job in jobs]
        assert subscriptions(bystander) == (1, 1)
    assert await until(lambda: subscriptions(bystander) == (0, 0)), "nothing is left"


async def test_it_takes_few_calls_to_await_many(bystander: redis.Redis, worker: Worker) -> None:
    async with AsyncBridge() as bridge:
        jobs = await submitted(bridge, 200)
        bystander.config_resetstat()
        awaiting = [asyncio.create_task(job.result()) for job in jobs]
        assert await until(lambda: bystander.hexists(keys.JOB + jobs[-1].id, "to"))
        asked = bystander.info("commandstats")["cmdstat_evalsha"]["calls"]
        await asyncio.to_thread(worker.end, *jobs)
        await asyncio.gather(*awaiting)
        told = bystander.info("commandstats")["cmdstat_evalsha"]["calls"] - asked - len(jobs)
    assert asked <= 3, "all are asked about together"
    assert told <= len(jobs), "and what has ended meanwhile is, too"


async def test_bridges_of_one_loop_share_the_subscription(bystander: redis.Redis, worker: Worker) -> None:
    async with AsyncBridge() as one, AsyncBridge() as other:
        jobs = [await one.submit(hashing("one")), await other.submit(hashing("other"))]
        awaiting = [asyncio.create_task(job.result()) for job in jobs]
        assert await until(lambda: bystander.hexists(keys.JOB + jobs[1].id, "to"))
        assert subscriptions(bystander) == (1, 1)
        worker.end(*jobs)
        await asyncio.gather(*awaiting)


async def test_without_async_with_it_works_as_well_and_leaves_nothing_open(
    bystander: redis.Redis, worker: Worker
) -> None:
    bridge = AsyncBridge()
    job = await bridge.submit(hashing("by the way"))
    assert (await job.state(), (await bridge.job(job.id)).id) == ("waiting", job.id)
    worker.end(job)
    assert await job == job.id
    assert not loop_line.lines.get(asyncio.get_running_loop())
    assert await until(lambda: subscriptions(bystander) == (0, 0))


async def test_an_awaiting_task_that_is_cancelled_leaves_nothing_and_the_job_goes_on(worker: Worker) -> None:
    async with AsyncBridge() as bridge, loop_line.line() as line:
        job = await bridge.submit(hashing("patience"))
        with pytest.raises(TimeoutError, match=f"job {job.id} has not ended after 0.05 s"):
            await job.result(0.05)
        waiting = asyncio.create_task(job.result())
        other = asyncio.create_task(job.result())
        assert await until(lambda: line.arrivals.awaited)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert line.arrivals.awaited == 1, "the other one still waits"
        worker.end(job)
        assert await other == job.id
        assert line.arrivals.awaited == 0
        tasks = {task.get_name() for task in asyncio.all_tasks()}
    assert {name for name in tasks if name.startswith("bridge-")} == {"bridge-listen", "bridge-ask"}
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("bridge-")]


async def test_ends_come_as_they_happen_and_errors_as_they_are(server: PrivateRedis, worker: Worker) -> None:
    async with AsyncBridge() as bridge:
        slow, quick, failing, cancelled = await submitted(bridge, 4)
        worker.end(quick)
        ends = bridge.as_completed([slow, quick, failing, cancelled], timeout=20)
        assert (await anext(ends)).result == quick.id
        worker.fail(failing)
        assert isinstance((await anext(ends)).error, ContentUnavailable)
        assert await cancelled.cancel()
        assert isinstance((await anext(ends)).error, JobCancelled)
        worker.end(slow)
        assert [end.job async for end in ends] == [slow]
        with pytest.raises(ContentUnavailable):
            await failing
        with pytest.raises(JobUnknown):
            await AsyncJob("nobody", None)
        with pytest.raises(JobUnknown):
            await bridge.job("nobody")
        late = await bridge.submit(hashing("late"))
        with pytest.raises(TimeoutError, match=r"1 jobs have not ended after 0\.05 s"):
            [end async for end in bridge.as_completed([late, slow], timeout=0.05) if end.job != slow]
    del server


async def test_what_is_refused_is_refused_alone_and_the_same_work_is_the_same_job(server: PrivateRedis) -> None:
    async with AsyncBridge() as bridge:
        answers = await asyncio.gather(
            bridge.submit(hashing("good"), correlation_id="first"),
            bridge.submit(get_stamp.s(file_hash="not a hash")),
            bridge.submit(hashing("good"), correlation_id="second"),
            bridge.submit(hashing("good"), correlation_id="third", force=True),
            return_exceptions=True,
        )
        first, refused, second, third = answers
        assert isinstance(refused, InvalidRequest)
        assert isinstance(first, AsyncJob)
        assert isinstance(second, AsyncJob)
        assert isinstance(third, AsyncJob)
        assert (second.id, second.stands, second.correlation_id) == (first.id, True, "first")
        assert third.id != first.id
        assert [job.id for job in await bridge.find(correlation_id="first")] == [first.id]
        assert await bridge.find(correlation_id="second") == []
        with pytest.raises(InvalidRequest):
            await bridge.submit(hashing("x"), correlation_id="a\nb")
    del server


async def test_health_tells_what_waits_and_that_nobody_works(
    server: PrivateRedis, bystander: redis.Redis, worker: Worker
) -> None:
    async with AsyncBridge() as bridge:
        (_, failing) = await submitted(bridge, 2)
        worker.fail(failing)
        seen = await bridge.health()
        assert (seen.redis, seen.workers, seen.healthy, seen.dead_letters) == (True, (), False, 1)
        depths = {queue.name: queue.depth for queue in seen.queues}
        assert depths == {"bridge.metadata": 2, "bridge.onextree": 0, "bridge.bulk": 0}
        assert 0 <= (seen.queues[0].oldest_seconds or -1) < 60
        assert list(seen.circuits.values()) == ["closed", "closed"]
        assert [line.split(":")[0] for line in seen.troubles] == [
            "2 jobs wait, and no worker lives",
            "1 dead letter",
        ]
        bystander.sadd("bridge:workers", "celery@here:abc")
        bystander.set("bridge:worker:celery@here:abc", "1")
        seen = await bridge.health()
        assert (seen.workers, seen.healthy) == (("celery@here",), True)
        server.kill()
        try:
            seen = await bridge.health()
            assert (seen.redis, seen.healthy, seen.troubles) == (False, False, ("Redis is out of reach",))
        finally:
            server.start()
