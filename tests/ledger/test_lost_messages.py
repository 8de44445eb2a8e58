"""What is lost, and what only looks so: messages of each priority, runs that go on, and what a retry replaced."""

from collections.abc import Iterator

import orjson
import pytest
import redis
from celery.exceptions import Reject
from celery.signals import task_failure

from bridge_tasks.bridge import Bridge, Job
from bridge_tasks.ledger import keys
from bridge_tasks.runtime import current
from bridge_tasks.settings import LedgerSettings, load
from bridge_tasks.tasks import generate_hash
from bridge_tasks.worker import endings
from bridge_tasks.worker.reconciler import Reconciler
from tests.tasks.sending import inline

QUEUE = "bridge.metadata"
LEASE = 60.0

assert endings.__name__  # imported for its handlers


@pytest.fixture
def reconciler(idle: redis.Redis) -> Iterator[Reconciler]:
    """One that looks when it is told to, and takes what is older than nothing."""
    assert idle.ping()
    settings = LedgerSettings(look_seconds=0.001, beat_seconds=0.0005, dead_after=0.002)
    made = Reconciler(load().ledger_place, settings, "looking")
    yield made
    made._client.close()


def submitted(text: str = "x", priority: int = 0) -> Job:
    return Bridge().submit(generate_hash.s(content=inline(text)).set(priority=priority))


def popped(idle: redis.Redis, queue: str = QUEUE) -> bytes:
    """Take the next message, as a worker does that dies with it."""
    raw = idle.rpop(queue)
    assert isinstance(raw, bytes)
    return raw


def looked(reconciler: Reconciler, times: int = 3) -> None:
    for _ in range(times):
        reconciler.look()


def test_a_message_that_is_nowhere_is_put_back_once(idle: redis.Redis, reconciler: Reconciler) -> None:
    job = submitted()
    popped(idle)

    looked(reconciler)

    assert idle.llen(QUEUE) == 1
    assert job.record.requeued == 1


@pytest.mark.parametrize("priority", [3, 6, 9])
def test_what_waits_behind_other_priorities_is_not_lost(
    idle: redis.Redis, reconciler: Reconciler, priority: int
) -> None:
    job = submitted("patient", priority)
    submitted("next")

    looked(reconciler)

    assert job.record.requeued == 0
    assert idle.llen(f"{QUEUE}\x06\x16{priority}") == 1
    assert job.record.queue == QUEUE


def test_what_is_lost_goes_back_to_its_priority(idle: redis.Redis, reconciler: Reconciler) -> None:
    submitted("lost", 6)
    popped(idle, f"{QUEUE}\x06\x166")

    looked(reconciler)

    assert idle.llen(f"{QUEUE}\x06\x166") == 1
    assert idle.llen(QUEUE) == 0


def test_what_was_given_back_out_of_order_is_not_lost(idle: redis.Redis, reconciler: Reconciler) -> None:
    jobs = [submitted(text) for text in "abc"]
    raw = [popped(idle) for _ in jobs]
    for one in raw:  # the first comes out last
        idle.rpush(QUEUE, one)

    looked(reconciler)

    assert [job.record.requeued for job in jobs] == [0, 0, 0]


def test_a_run_that_goes_on_without_its_message_is_left_alone(idle: redis.Redis, reconciler: Reconciler) -> None:
    job = submitted()
    popped(idle)
    runtime = current()
    idle.set(f"{keys.WORKER}busy", "1")
    assert runtime.run(runtime.ledger.begin(job.id, 0, "busy", LEASE)).verdict == "run"

    looked(reconciler)
    assert job.record.requeued == 0

    idle.delete(f"{keys.WORKER}busy")
    looked(reconciler)
    assert job.record.requeued == 1


def test_a_retry_that_could_not_be_published_is_put_back_and_has_not_failed(
    idle: redis.Redis, reconciler: Reconciler
) -> None:
    job = submitted()
    popped(idle)
    runtime = current()
    idle.set(f"{keys.WORKER}busy", "1")
    runtime.run(runtime.ledger.begin(job.id, 0, "busy", LEASE))

    task_failure.send(sender=generate_hash, task_id=job.id, exception=Reject("no broker", requeue=False))
    assert job.state == "running"
    looked(reconciler)

    assert (job.state, job.record.requeued, idle.llen(QUEUE)) == ("waiting", 1, 1)


def test_a_second_message_of_a_run_that_goes_on_is_spared(idle: redis.Redis) -> None:
    job = submitted()
    runtime = current()
    idle.set(f"{keys.WORKER}busy", "1")

    verdicts = [
        runtime.run(runtime.ledger.begin(job.id, 0, worker, LEASE)).verdict for worker in ("busy", "other")
    ]

    assert verdicts == ["run", "busy"]


def test_a_message_that_a_retry_replaced_is_spared(idle: redis.Redis) -> None:
    job = submitted()
    idle.hset(f"{keys.JOB}{job.id}", "rank", 2)
    runtime = current()

    verdicts = [runtime.run(runtime.ledger.begin(job.id, rank, "any", LEASE)).verdict for rank in (1, 2)]

    assert verdicts == ["busy", "run"]


def test_what_a_dead_worker_held_goes_back_to_where_it_came_from(
    idle: redis.Redis, reconciler: Reconciler
) -> None:
    job = submitted("ours")
    ours = popped(idle)
    foreign = {"headers": {"task": "theirs", "id": "1"}, "properties": {"delivery_tag": "t2"}, "body": ""}
    idle.sadd("_kombu.binding.shop", "orders.new\x06\x16\x06\x16orders")
    tag = orjson.loads(ours)["properties"]["delivery_tag"]
    held = {tag: [orjson.loads(ours), QUEUE, QUEUE], "t2": [foreign, "shop", "orders.new"]}
    for name, message in held.items():
        idle.hset(f"{keys.UNACKED}gone", name, orjson.dumps(message))
        idle.zadd(f"{keys.UNACKED_INDEX}gone", {name: 1.0})
    idle.sadd(keys.WORKERS, "gone")

    looked(reconciler, 1)

    assert (idle.llen(QUEUE), idle.llen("orders")) == (1, 1)
    assert orjson.loads(popped(idle, "orders"))["headers"]["redelivered"] is True
    assert not list(idle.scan_iter("bridge:unacked*"))
    assert not idle.smembers(keys.WORKERS)
    looked(reconciler)
    assert job.record.requeued == 0


def test_a_worker_that_leaves_in_good_order_leaves_nothing(idle: redis.Redis) -> None:
    made = Reconciler(load().ledger_place, load().ledger, "brief")
    made.start()
    assert idle.smembers(keys.WORKERS) == {b"brief"}

    made.stop()

    assert not idle.smembers(keys.WORKERS)
    assert not list(idle.scan_iter("bridge:worker:*"))
