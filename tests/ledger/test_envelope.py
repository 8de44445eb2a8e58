"""Messages as kombu keeps them: rewritten without a look at their body."""

import json

from kombu.transport.redis import Channel

from bridge_tasks.ledger.envelope import PRIORITY_SEPARATOR, PRIORITY_STEPS, Envelope
from tests.ledger.conftest import QUEUE, envelope


def test_our_names_of_priority_lists_are_kombu_s() -> None:
    assert Channel.sep == PRIORITY_SEPARATOR
    assert list(PRIORITY_STEPS) == list(Channel.priority_steps)


def test_a_message_goes_back_to_the_list_of_its_priority() -> None:
    message = json.loads(envelope("a"))
    for priority, step in ((0, ""), (2, ""), (3, "3"), (5, "3"), (9, "9"), (200, "9"), (None, "")):
        message["properties"]["priority"] = priority
        expected = f"{QUEUE}{PRIORITY_SEPARATOR}{step}" if step else QUEUE
        assert Envelope(message).queue_key(QUEUE) == expected


def test_a_message_that_is_put_back_has_a_delivery_tag_of_its_own_and_is_the_same_otherwise() -> None:
    message = Envelope.loads(envelope("a", retries=4))
    again = message.fresh()
    assert again.message["properties"]["delivery_tag"] != message.message["properties"]["delivery_tag"]
    assert again.message["headers"] == message.message["headers"]
    assert again.message["body"] == message.message["body"]


def test_a_dead_letter_begins_anew() -> None:
    old = Envelope.loads(envelope("a", retries=4, eta="2026-01-01T00:00:00", expires="x", **{"x-bridge-waits": 3}))
    headers = old.fresh(anew=True).message["headers"]
    assert (headers["retries"], headers["eta"], headers["expires"]) == (0, None, None)
    assert "x-bridge-waits" not in headers


def test_a_message_of_a_dead_worker_says_that_it_was_delivered_before() -> None:
    again = Envelope.loads(envelope("a")).redelivered().message
    assert again["headers"]["redelivered"] is True
    assert again["properties"]["delivery_info"]["redelivered"] is True


def test_what_is_no_message_of_a_task_has_no_task() -> None:
    assert Envelope({"headers": None}).task_id is None
    assert Envelope({"headers": {}}).task_id is None
