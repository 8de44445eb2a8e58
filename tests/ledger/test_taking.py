"""A worker that acknowledges a message takes the next with the same words, on a real Redis."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import patch

import pytest
import redis
from kombu import Connection

from bridge_tasks import events
from bridge_tasks.broker.recording import run_script
from bridge_tasks.broker.redis import _TAKE, Channel
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.envelope import queue_keys
from bridge_tasks.ledger.workers import Workers
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.worker.reconciler import _held_message
from tests.ledger.conftest import QUEUE
from tests.never_suspending import finished
from tests.tasks.hostile import message

OTHER = "bridge.onextree"
WORKER = "w1"


class Consumer:
    """A worker's main process, in one hand: what it was given, and what Redis says that it holds."""

    def __init__(self, client: redis.Redis, connection: Connection) -> None:
        self.client = client
        self.connection = connection
        self.channel = channel = cast("Channel", connection.channel())
        self.given: list[Any] = []
        for queue in (QUEUE, OTHER):
            channel.basic_consume(queue, False, self.given.append, queue)
        channel.qos.done_with = channel.take_next

    def put(self, *names: str, into: str = QUEUE) -> None:
        for name in names:
            self.client.lpush(into, json.dumps(message(name)))

    def first(self) -> Any:
        """Wait for a message, as a worker does that has nothing to do."""
        self.connection.drain_events(timeout=10)
        return self.given[-1]

    def names(self) -> list[str]:
        return [message.headers["id"] for message in self.given]

    def held(self) -> list[str]:
        found = map(_held_message, self.client.hvals(keys.UNACKED + WORKER))
        assert self.client.hlen(keys.UNACKED + WORKER) == self.client.zcard(keys.UNACKED_INDEX + WORKER)
        return sorted(str(message[0].task_id) for message in found if message)


@pytest.fixture
def consumer(client: redis.Redis, ledger_server: PrivateRedis) -> Iterator[Consumer]:
    options = {"unacked_key": keys.UNACKED + WORKER, "unacked_index_key": keys.UNACKED_INDEX + WORKER}
    with Connection(
        ledger_server.url, transport="bridge_tasks.broker.redis:Transport", transport_options=options
    ) as connection:
        yield Consumer(client, connection)


@contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    """Have Redis refuse whatever needs memory."""
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


def test_with_one_message_acknowledged_the_next_is_held(consumer: Consumer) -> None:
    consumer.put("a", "b", "c")
    consumer.first().ack()
    assert consumer.names() == ["a", "b"]
    assert consumer.held() == ["b"]
    consumer.given[-1].ack()
    assert consumer.held() == ["c"]
    consumer.given[-1].ack()
    assert consumer.names() == ["a", "b", "c"]
    assert consumer.held() == []
    assert consumer.client.llen(QUEUE) == 0


def test_it_is_one_round_trip(consumer: Consumer) -> None:
    consumer.put("a", "b")
    message = consumer.first()
    with patch.object(
        redis.Redis, "execute_command", autospec=True, side_effect=redis.Redis.execute_command
    ) as asked:
        message.ack()
    assert consumer.names() == ["a", "b"]
    assert [call.args[1] for call in asked.call_args_list] in (["EVALSHA"], ["EVALSHA", "EVAL"])


def test_what_is_held_is_known_by_the_tag_with_which_it_is_acknowledged(consumer: Consumer) -> None:
    consumer.put("a", "b")
    consumer.first().ack()
    assert consumer.client.hkeys(keys.UNACKED + WORKER) == [consumer.given[-1].delivery_tag.encode()]
    assert consumer.client.sismember("bridge:workers", WORKER)


def test_nothing_is_taken_where_no_slot_is_free(consumer: Consumer) -> None:
    consumer.put("a", "b")
    message = consumer.first()
    consumer.channel.qos.can_consume = lambda: False  # type: ignore[method-assign] # as Celery does
    message.ack()
    assert consumer.held() == []
    assert consumer.client.llen(QUEUE) == 1


def test_nothing_is_taken_while_redis_is_asked_for_a_message_already(consumer: Consumer) -> None:
    consumer.put("a", "b")
    message = consumer.first()
    with patch.object(consumer.channel, "_in_poll", new=True):
        message.ack()
    assert consumer.held() == []
    assert consumer.names() == ["a"]


def test_nothing_is_taken_from_a_queue_that_is_consumed_no_more(consumer: Consumer) -> None:
    consumer.put("a", into=OTHER)
    message = consumer.first()
    consumer.put("b")
    consumer.channel.basic_cancel(QUEUE)
    message.ack()
    assert consumer.names() == ["a"]
    assert consumer.client.llen(QUEUE) == 1


def test_priorities_are_kept_and_the_queues_come_in_turn(consumer: Consumer) -> None:
    first, later, *_ = queue_keys(QUEUE)
    consumer.put("a")
    message = consumer.first()
    consumer.put("late", into=later)
    consumer.put("soon", "soon-too", into=first)
    consumer.put("of-another-queue", into=OTHER)
    while message is not None:
        message.ack()
        message = consumer.given[-1] if consumer.held() else None
    assert consumer.names() == ["a", "of-another-queue", "soon", "soon-too", "late"]


def test_who_asks_again_is_given_the_same_message(consumer: Consumer) -> None:
    consumer.put("a", "b")
    names = (keys.UNACKED_INDEX + WORKER, keys.UNACKED + WORKER, OTHER, QUEUE)
    arguments = ("done", 1.0, WORKER, "session", "tag", OTHER, QUEUE)
    said = [run_script(consumer.client, _TAKE, names, arguments) for _ in range(2)]
    assert said[0] == said[1]
    assert said[0][0] == QUEUE.encode()
    assert consumer.held() == ["a"]
    assert consumer.client.llen(QUEUE) == 1


def test_what_was_asked_over_a_connection_before_and_comes_late_takes_nothing(consumer: Consumer) -> None:
    consumer.put("a", "b")
    message = consumer.first()
    with consumer.connection.clone() as anew:
        cast("Channel", anew.channel()).qos.begin_session()
    message.ack()
    assert consumer.names() == ["a"]
    assert consumer.held() == []
    assert consumer.client.llen(QUEUE) == 1
    with pytest.raises(redis.ConnectionError, match="connected anew"):
        consumer.first()
    assert consumer.held() == []
    consumer.channel.qos.begin_session()
    consumer.put("c")
    consumer.first().ack()
    assert consumer.names() == ["a", "c"]


def test_a_worker_that_is_forgotten_leaves_no_session(consumer: Consumer) -> None:
    consumer.channel.qos.begin_session()
    finished(Workers(BlockingRedis(consumer.client)).forget(WORKER))
    assert consumer.client.keys("bridge:session:*") == []


def test_a_full_redis_loses_no_message(consumer: Consumer) -> None:
    consumer.put("a", "b")
    message = consumer.first()
    with full(consumer.client):
        message.ack()
    assert consumer.client.llen(QUEUE) + len(consumer.held()) == 1
    assert consumer.held() == consumer.names()[1:]


@pytest.mark.parametrize("raw", [b"no JSON", b'"a text"', b"[[[", b'{"headers": []}', b"\xff\x00"])
def test_what_is_no_message_is_dropped_and_held_no_longer(
    raw: bytes, consumer: Consumer, facts: list[events.Event]
) -> None:
    consumer.put("a")
    message = consumer.first()
    consumer.client.lpush(QUEUE, raw)
    message.ack()
    assert consumer.names() == ["a"]
    assert consumer.client.hlen(keys.UNACKED + WORKER) == 0
    assert [fact.queue for fact in facts if isinstance(fact, events.MessageDropped)] == [QUEUE]
    consumer.put("b")
    assert consumer.first().headers["id"] == "b"


def test_over_a_connection_that_was_lost_nothing_is_asked(consumer: Consumer) -> None:
    consumer.put("a", "b")
    message = consumer.first()
    with patch.object(consumer.channel, "connection", new=None):
        message.ack()
    assert consumer.held() == ["a"]
    assert consumer.client.llen(QUEUE) == 1
