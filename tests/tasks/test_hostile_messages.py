"""Hostile messages, put straight into the queues of real workers: each is refused by name; they go on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery.result import AsyncResult

from bridge_tasks import errors
from bridge_tasks.app import app
from bridge_tasks.errors import MessageRefused
from bridge_tasks.ledger import keys
from tests.tasks.hostile import CHANNEL, SECRET, TABLE, Hostile, message
from tests.tasks.sending import done, inline
from tests.workers import PATIENCE, Pool, eventually, memory

QUEUE = "bridge.metadata"
MEMORY = 96 * 1024 * 1024


@pytest.fixture
def queue(prefork: Pool) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(prefork.redis_url) as client:
        yield client


def held(client: redis.Redis) -> int:
    """How many messages workers hold."""
    return sum(client.hlen(name) for name in client.scan_iter(f"{keys.UNACKED}*"))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.what)
def test_a_hostile_message_is_refused_by_name_and_the_worker_goes_on(
    row: Hostile, prefork: Pool, queue: redis.Redis
) -> None:
    name, children, before = str(uuid4()), prefork.children(), len(prefork.lines(event="message refused"))
    queue.lpush(QUEUE, row.raw(name))
    assert done("generate_hash", content=inline("and then this"))["file_size_bytes"] == 13

    if row.field:
        refused = eventually(lambda: prefork.lines(event="message refused")[before:])
        assert [line["field"] for line in refused] == [row.field]
        assert SECRET not in json.dumps(refused)
    elif row.error:
        with pytest.raises(getattr(errors, row.error)) as failure:
            AsyncResult(name, app=app).get(timeout=PATIENCE)
        assert SECRET not in str(failure.value)
    else:
        assert AsyncResult(name, app=app).get(timeout=PATIENCE)
    assert prefork.worker.running
    assert prefork.children() == children
    assert eventually(lambda: not held(queue))
    assert queue.llen(QUEUE) == 0


def test_no_word_of_a_hostile_message_is_in_the_log_and_nothing_of_it_ran(prefork: Pool) -> None:
    log = prefork.log()
    assert SECRET not in log
    assert "\x1b" not in log
    assert "consumer: Connection" not in log
    assert "Unrecoverable error" not in log
    assert not Path("/tmp/owned").exists()  # noqa: S108 - where the table's messages would have put it


def test_a_bomb_costs_no_memory(prefork: Pool) -> None:
    pids = [prefork.worker.pid, *prefork.children()]
    assert max(memory(pid, "VmHWM") - memory(pid, "VmRSS") for pid in pids) < MEMORY


@pytest.mark.parametrize("name", ["threads", "solo"])
def test_other_pools_refuse_the_same_in_one_go(name: str, pools: dict[str, Pool], request: Any) -> None:
    pool: Pool = request.getfixturevalue(name)
    del pools
    with redis.Redis.from_url(pool.redis_url) as client:
        client.lpush(QUEUE, *(row.raw(str(uuid4())) for row in TABLE))
        for _, raw in CHANNEL:
            client.publish(f"/{client.get_connection_kwargs()['db']}.celery.pidbox", raw)
        assert done("generate_hash", content=inline("and then this"))["file_size_bytes"] == 13
        assert eventually(lambda: not held(client) and not client.llen(QUEUE))
    assert pool.worker.running
    assert SECRET not in pool.log()
    assert "Unrecoverable error" not in pool.log()


@pytest.mark.parametrize(("what", "raw"), CHANNEL, ids=lambda value: value if isinstance(value, str) else "")
def test_a_worker_survives_what_comes_on_the_channel_of_orders(
    what: str, raw: bytes, prefork: Pool, queue: redis.Redis
) -> None:
    del what
    queue.publish("/1.celery.pidbox", raw)
    assert app.control.ping(timeout=PATIENCE, limit=1)  # the same connection goes on: an order is not lost
    assert done("generate_hash", content=inline("and then this"))
    assert prefork.worker.running
    assert SECRET not in prefork.log()


def test_a_job_whose_own_message_is_refused_ends_and_says_why(prefork: Pool, queue: redis.Redis) -> None:
    name = str(uuid4())
    raw = json.dumps(message(name, headers={"retries": "many"}))
    queue.hset(keys.JOB + name, mapping={"state": "waiting", "message": raw, "queue": QUEUE, "queued": 1})
    queue.lpush(QUEUE, raw)
    assert eventually(lambda: queue.hget(keys.JOB + name, "state") == b"failed")
    assert MessageRefused.__name__ in str(queue.hget(keys.JOB + name, "outcome"))
    assert prefork.worker.running


def test_a_refused_message_that_has_another_job_s_id_does_that_job_no_harm(
    prefork: Pool, queue: redis.Redis
) -> None:
    name, before = str(uuid4()), len(prefork.lines(event="message refused"))
    own = json.dumps(message(name))
    queue.hset(keys.JOB + name, mapping={"state": "waiting", "message": own, "queue": QUEUE, "queued": 1})
    queue.lpush(QUEUE, json.dumps(message(name, headers={"retries": "many"})))
    queue.lpush(QUEUE, json.dumps(message(name, task="os.system")))
    assert eventually(lambda: len(prefork.lines(event="message refused")) == before + 2)
    assert queue.hget(keys.JOB + name, "state") == b"waiting"
