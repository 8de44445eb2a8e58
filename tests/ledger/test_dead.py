"""Dead letters: which are meant, how many are told of, and which can be sent again."""

import pytest

from bridge_tasks.errors import (
    BridgeError,
    CircuitBreakerError,
    ContentUnavailable,
    InvalidRequest,
    JobExpired,
    JobFailed,
    ServiceUnavailableError,
)
from bridge_tasks.ledger import DeadLetter, JobRecord, Outcome
from bridge_tasks.ledger.dead import Wanted, names_of
from bridge_tasks.ledger.envelope import JOINED
from tests.ledger.conftest import Desk, envelope
from tests.never_suspending import finished


def letter(
    task: str = "bridge.create_stamp",
    error: BridgeError | None = None,
    cid: str = "trip-1",
    subject: str = "/docs/a.md",
    ended: float = 100.0,
) -> DeadLetter:
    outcome = Outcome("failed", error=error or ContentUnavailable("gone"))
    record = JobRecord(
        "id", "failed", task, cid, subject, 0.0, ended=ended, queue="bridge.metadata\x06\x163", outcome=outcome
    )
    return DeadLetter(record, kept=True)


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (Wanted(), True),
        (Wanted(task="bridge.create_stamp"), True),
        (Wanted(task="create_stamp"), True),
        (Wanted(task="create_*"), True),
        (Wanted(task="*_hash"), False),
        (Wanted(error="ContentUnavailable"), True),
        (Wanted(error="BridgeError"), True),
        (Wanted(error="ClientError"), False),
        (Wanted(correlation_id="trip-1"), True),
        (Wanted(correlation_id="trip-"), False),
        (Wanted(queue="bridge.metadata"), True),
        (Wanted(queue="bridge.bulk"), False),
        (Wanted(subject="/docs/*.md"), True),
        (Wanted(subject="*.md"), True),
        (Wanted(subject="/docs"), False),
        (Wanted(since=100.0), True),
        (Wanted(since=100.1), False),
        (Wanted(until=100.0), False),
        (Wanted(until=100.1), True),
        (Wanted(task="create_stamp", error="ContentUnavailable", since=1.0, until=200.0), True),
        (Wanted(task="create_stamp", error="InvalidRequest"), False),
    ],
)
def test_a_letter_is_meant_if_all_that_is_given_holds(wanted: Wanted, meant: bool) -> None:
    assert wanted.means(letter()) is meant


def test_an_error_is_found_by_its_own_name_by_those_above_it_and_by_what_it_was_elsewhere() -> None:
    assert "ServiceUnavailableError" in names_of(CircuitBreakerError("open"))
    assert names_of(JobFailed("ValueError", "ValueError"))[:2] == ("ValueError", "JobFailed")
    assert names_of(JobExpired("too old", "age")) == ("JobExpired", "JobFailed", "BridgeError")
    assert names_of(InvalidRequest("a", "b")) == ("InvalidRequest", "BridgeError")


def test_a_letter_is_found_among_very_many(desk: Desk) -> None:
    for number in range(1200):
        name = f"job-{number}"
        desk.put(name)
        error = ServiceUnavailableError("down") if number % 400 == 7 else ContentUnavailable("gone")
        desk.finish(name, Outcome("failed", error=error))

    found = finished(desk.ledger.dead(wanted=Wanted(error="ServiceUnavailableError")))
    assert [one.record.id for one in found] == ["job-807", "job-407", "job-7"], "latest first"
    assert len(finished(desk.ledger.dead(limit=2, wanted=Wanted(error="ServiceUnavailableError")))) == 2
    assert len(finished(desk.ledger.dead(limit=5000))) == finished(desk.ledger.dead_count()) == 1200
    middle = found[1].record.ended
    assert middle
    assert len(finished(desk.ledger.dead(limit=5000, wanted=Wanted(until=middle)))) == 407
    assert len(finished(desk.ledger.dead(limit=5000, wanted=Wanted(since=middle)))) == 1200 - 407


def test_what_a_chord_was_to_join_is_not_sent_again_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = lambda name: envelope(name, **{JOINED: "1"})  # noqa: E731 - in place of the desk's own
    monkeypatch.setitem(type(desk).put.__globals__, "envelope", marked)
    desk.put("member")
    desk.finish("member", Outcome("failed", error=ContentUnavailable("gone")))

    found = finished(desk.ledger.dead_letter("member"))
    assert found is not None
    assert (found.kept, found.joined, found.replayable) == (True, True, False)
    assert not finished(desk.ledger.replay("member"))
    assert desk.waiting() == ["member"], "only the first message"


def test_a_job_of_which_several_parts_failed_tells_the_first_error_and_its_successes_tell_none(desk: Desk) -> None:
    desk.submit("a", job="group", parts=("a", "b", "c"), whole=False)
    desk.put("b", job="group", part="b")
    desk.put("c", job="group", part="c")
    desk.finish("b", Outcome("failed", error=ContentUnavailable("first")))
    desk.finish("c", Outcome("failed", error=ContentUnavailable("second")))
    desk.finish("a")
    outcome = desk.record("group").outcome
    assert outcome is not None
    assert str(outcome.error) == "first"

    finished(desk.ledger.replay("b"))
    desk.finish("b")
    again = desk.record("group")
    assert (again.state, str(again.outcome and again.outcome.error)) == ("failed", "second")
    finished(desk.ledger.replay("c"))
    desk.finish("c")
    assert desk.record("group").outcome == Outcome("succeeded", None)


def test_what_leads_to_several_parts_fails_the_job_and_a_callback_does_not(desk: Desk) -> None:
    desk.submit("b", job="group", parts=("b", "c"), whole=False)
    desk.put("callback", job="group", part="-")
    desk.finish("callback", Outcome("failed", error=ContentUnavailable("gone")))
    assert desk.record("group").state == "waiting"
    desk.put("first", job="group", part="")
    desk.finish("first", Outcome("failed", error=ContentUnavailable("gone")))
    assert desk.record("group").state == "failed"
