"""What is going on, in one look: the oldest that has not ended, the latest that failed, the latest runs."""

import json
from collections.abc import Callable
from uuid import uuid4

import pytest
import redis

from bridge_tasks.cache import RedisCache
from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.errors import ContentUnavailable
from bridge_tasks.ledger import Outcome, keys
from bridge_tasks.ledger.overview import LedgerOverview, overview
from bridge_tasks.ledger.run_records import RunOptions
from bridge_tasks.ledger.runs import RunLedger
from bridge_tasks.messages import summary
from bridge_tasks.overview import Overview, take
from bridge_tasks.pipelining import Pipelined, together
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig, CircuitState
from bridge_tasks.resilience.state.circuit_script import Asker
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.ledger.conftest import QUEUE, Desk, envelope


def seen(desk: Desk, most: int = 5) -> LedgerOverview:
    return drive(overview(BlockingRedis(desk.client), most))


def looked(client: redis.Redis, *, cache: bool = True) -> Overview:
    over = Pipelined(client)
    asker = Asker("service", CircuitBreakerConfig())
    return take(
        over,
        over,
        queues=[QUEUE],
        circuits={"metadata": asker},
        broker="redis",
        cache=(lambda shared: RedisCache(shared, "onextree")) if cache else None,
        most=5,
    )


def test_nothing_is_told_of_nothing(desk: Desk) -> None:
    told = seen(desk)
    assert (told.open, told.oldest, told.failures, told.runs, told.failed_lately) == ({}, (), (), (), 0)


def test_what_has_not_ended_is_told_oldest_first_with_who_is_at_it(desk: Desk) -> None:
    for name in ("a", "b", "c"):
        desk.put(name)
    desk.begin("a", worker="celery@host:0123")
    desk.finish("c")

    told = seen(desk)

    assert told.open == {QUEUE: 2}
    assert [(one.record.id, one.record.state, one.worker) for one in told.oldest] == [
        ("a", "running", "celery@host"),
        ("b", "waiting", ""),
    ]
    assert told.oldest[0].record.subject == "/a.md"


def test_a_failure_is_told_with_why_and_for_whom(desk: Desk) -> None:
    desk.put("a")
    told_by_message = envelope(
        "a", kwargsrepr=summary({"content": 7, "namespace": "billing", "context": "x"}, "c1")
    )
    desk.client.hset(keys.JOB + "a", "message", told_by_message)
    desk.begin("a")
    desk.finish("a", Outcome("failed", error=ContentUnavailable("/a.md is gone")))

    (failed,) = seen(desk).failures

    assert (failed.record.id, failed.namespace, failed.record.runs) == ("a", "billing", 1)
    assert failed.record.outcome is not None
    assert str(failed.record.outcome.error) == "/a.md is gone"
    assert seen(desk).failed_lately == 1


@pytest.mark.parametrize("message", ["no JSON", "[1]", json.dumps({"headers": 3}), "x" * 300_000])
def test_a_message_that_cannot_be_read_tells_nothing(desk: Desk, message: str) -> None:
    desk.put("a")
    desk.client.hset(keys.JOB + "a", "message", message)
    (told,) = seen(desk).oldest
    assert (told.record.id, told.namespace) == ("a", "")


def test_the_latest_runs_come_first_and_no_more_than_asked_for(desk: Desk) -> None:
    runs = RunLedger(BlockingRedis(desk.client), desk.settings)
    names = [str(uuid4()) for _ in range(3)]
    for name in names:
        drive(runs.create(name, "cid", "docs", RunOptions("handbook")))
    assert [run.id for run in seen(desk, 2).runs] == [names[2], names[1]]


def test_a_look_at_everything_costs_two_round_trips_and_leaves_nothing(desk: Desk) -> None:
    for number in range(50):
        desk.put(f"job-{number}")
    looked(desk.client)  # from here on Redis knows the scripts
    before, size = reads(desk.client), desk.client.dbsize()

    told = looked(desk.client)

    assert reads(desk.client) - before - 1 - 1 <= 2, (
        "but for the questions how many there were, and how large it is"
    )
    assert desk.client.dbsize() == size
    assert told.health.waiting == 50
    assert told.cache is not None
    circuit = told.circuits["metadata"]
    assert circuit is not None
    assert circuit.state is CircuitState.CLOSED


def reads(client: redis.Redis) -> int:
    """How often the server has read from a connection."""
    return int(client.info("stats")["total_reads_processed"])


def test_where_nothing_is_cached_nothing_is_told_of_it(desk: Desk) -> None:
    assert looked(desk.client, cache=False).cache is None


def test_a_redis_that_is_away_is_told_and_nothing_raised() -> None:
    with PrivateRedis() as server, redis.Redis.from_url(server.url) as client:
        server.kill()
        told = looked(client)
    assert (told.health.redis, told.ledger, told.cache, told.circuits) == (False, None, None, {"metadata": None})


def test_a_redis_that_forgot_its_scripts_is_asked_again(desk: Desk) -> None:
    desk.put("a")
    desk.client.script_flush()
    assert looked(desk.client).health.waiting == 1


@pytest.fixture
def two(client: redis.Redis) -> Callable[..., list[object]]:
    asking = Pipelined(client)

    async def ask(*command: object) -> object:
        return await asking.execute_command(*command)

    return lambda *commands: together(*(ask(*command) for command in commands))


def test_answers_go_to_whom_they_are_for(two: Callable[..., list[object]]) -> None:
    assert two(("ECHO", "a"), ("ECHO", "b")) == [b"a", b"b"]


def test_an_error_meets_only_who_asked_for_it(two: Callable[..., list[object]], client: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError):
        two(("SET", "there", "1"), ("NOSUCH",))
    assert client.get("there") == b"1"
