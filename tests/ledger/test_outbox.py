"""The outbox: a message is in it from the moment of its record until somebody says that the broker has it."""

import time

import pytest

from bridge_tasks.broker.recording import run_script
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.ledger import JobLedger, Outcome, keys
from bridge_tasks.ledger.jobs import PUT
from bridge_tasks.ledger.outbox import Outbox
from tests.ledger.conftest import QUEUE, Desk, envelope
from tests.never_suspending import finished

HOLD = 5_000_000
"""Microseconds for which nobody else sends what is being sent."""


def put(desk: Desk, name: str, *, rank: int = 0, hold: int = HOLD, later: int = 0) -> tuple[bool, int | None]:
    """Write a record as the transport for RabbitMQ does: whether it was new, and when others may send it."""
    touched = (keys.JOB + name, QUEUE, keys.OPEN + QUEUE, keys.OUTBOX)
    message = (name, envelope(name), QUEUE, "bridge.x", "cid", "/a.md", rank, 1000, "", "", "")
    sent, _, _, *due = run_script(desk.client, PUT, touched, (*message, hold, later))
    return bool(sent), int(due[0]) if due else None


def outbox(desk: Desk, hold: float = 60.0) -> Outbox:
    return Outbox(BlockingRedis(desk.client), hold)


def taken(desk: Desk, hold: float = 60.0) -> list[str]:
    return [one.id for one in finished(outbox(desk, hold).take())]


def test_a_message_goes_into_the_outbox_and_not_into_a_list(desk: Desk) -> None:
    sent, due = put(desk, "a")

    assert sent
    assert due is not None
    assert desk.waiting() == []
    assert desk.record("a").state == "waiting"
    assert finished(outbox(desk).waiting()) == {"a"}


def test_what_is_being_sent_is_nobody_elses_for_a_while(desk: Desk) -> None:
    put(desk, "being sent")
    put(desk, "left over", hold=0)

    assert taken(desk) == ["left over"]
    assert taken(desk) == []  # whoever has it sends it
    assert finished(outbox(desk).waiting()) == {"being sent", "left over"}


def test_what_its_taker_did_not_send_is_taken_again(desk: Desk) -> None:
    put(desk, "a", hold=0)

    assert [taken(desk, hold=0.0), taken(desk, hold=0.0)] == [["a"], ["a"]]


def test_what_the_broker_has_is_out_of_it(desk: Desk) -> None:
    _, due = put(desk, "a", hold=0)
    assert due is not None

    finished(outbox(desk).sent("a", due))

    assert taken(desk) == []
    assert desk.record("a").state == "waiting"


def test_who_was_late_does_not_take_out_what_was_put_in_anew(desk: Desk) -> None:
    _, first = put(desk, "a", hold=0)
    _, second = put(desk, "a", rank=1, hold=0)
    assert first is not None
    assert second is not None
    assert second > first

    finished(outbox(desk).sent("a", first))

    assert taken(desk) == ["a"]


def test_a_message_that_is_sent_twice_is_sent_again_only_while_it_is_not_confirmed(desk: Desk) -> None:
    _, due = put(desk, "a")
    assert due is not None
    assert put(desk, "a") == (False, due)

    finished(outbox(desk).sent("a", due))

    assert put(desk, "a") == (False, None)


def test_an_older_message_than_the_one_in_the_outbox_does_not_answer_for_it(desk: Desk) -> None:
    put(desk, "a")
    put(desk, "a", rank=1)

    assert put(desk, "a", rank=0) == (False, None)


def test_what_waits_for_its_time_is_not_sent_before(desk: Desk) -> None:
    later = int(time.time() * 1_000_000) + 3_600_000_000
    _, due = put(desk, "a", hold=0, later=later)

    assert due == later
    assert taken(desk) == []


@pytest.mark.parametrize("end", ["finished", "cancelled"])
def test_what_is_over_is_not_sent(desk: Desk, end: str) -> None:
    put(desk, "a", hold=0)
    if end == "finished":
        desk.finish("a")
    else:
        finished(desk.ledger.cancel("a"))

    assert taken(desk) == []
    assert finished(outbox(desk).waiting()) == set()


def test_a_dead_letter_that_is_replayed_goes_through_the_outbox(desk: Desk) -> None:
    ledger = JobLedger(BlockingRedis(desk.client), desk.settings, relayed=True)
    put(desk, "a", hold=0)
    desk.begin("a")
    finished(ledger.finish("a", Outcome("failed")))

    assert finished(ledger.replay("a"))

    assert desk.waiting() == []
    assert taken(desk) == ["a"]
