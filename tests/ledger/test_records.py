"""Records in Redis: written with the message, claimed by one worker, ended once."""

from collections.abc import Callable

import pytest
import redis

from bridge_tasks.errors import ClientError, JobCancelled, JobFailed, JobUnknown
from bridge_tasks.ledger import Outcome, Submission, keys
from bridge_tasks.ledger.waiting import outcomes_of
from tests.ledger.conftest import QUEUE, Desk
from tests.never_suspending import finished

FAILED = Outcome("failed", error=ClientError("it said no", 422, "VALIDATION_ERROR"))


def test_a_message_and_its_record_are_written_together(desk: Desk) -> None:
    assert desk.put("a") == (True, "a", "waiting")
    record = desk.record("a")
    assert (record.state, record.task, record.correlation_id, record.subject) == (
        "waiting",
        "bridge.x",
        "cid",
        "/a.md",
    )
    assert desk.waiting() == ["a"]
    assert desk.client.zrange(keys.OPEN + QUEUE, 0, -1) == [b"a"]


def test_a_message_that_is_sent_twice_is_in_the_queue_once(desk: Desk) -> None:
    desk.put("a")
    assert desk.put("a") == (False, "a", "waiting")
    assert desk.waiting() == ["a"]


def test_a_retry_is_another_message_of_the_same_task(desk: Desk) -> None:
    desk.put("a")
    desk.begin("a")
    assert desk.put("a", rank=1)[0]
    assert desk.record("a").state == "waiting"
    assert desk.put("a", rank=1) == (False, "a", "waiting"), "the same retry twice is one"


def test_nothing_is_sent_for_a_task_that_has_ended(desk: Desk) -> None:
    desk.put("a")
    desk.begin("a")
    desk.finish("a")
    assert desk.put("a", rank=7) == (False, "a", "succeeded")
    assert desk.waiting() == ["a"]


def test_one_worker_runs_a_message_and_another_is_told_that_it_is_busy(desk: Desk) -> None:
    desk.put("a")
    assert desk.begin("a", worker="w1").verdict == "run"
    assert desk.begin("a", worker="w2").verdict == "busy"


def test_what_a_dead_worker_ran_is_run_again_and_known_to_be_begun_before(desk: Desk) -> None:
    desk.put("a")
    assert desk.begin("a", worker="w1").runs == 0
    desk.dies("w1")
    again = desk.begin("a", worker="w2")
    assert (again.verdict, again.runs) == ("run", 1)


def test_a_retry_is_run_though_the_run_before_it_seems_to_go_on(desk: Desk) -> None:
    desk.put("a")
    desk.begin("a")
    desk.put("a", rank=1)
    assert desk.begin("a", rank=1).verdict == "run"


def test_a_message_of_a_task_that_ended_is_answered_with_its_outcome(desk: Desk) -> None:
    desk.put("a")
    desk.begin("a")
    desk.finish("a")
    claim = desk.begin("a")
    assert claim.verdict == "succeeded"
    assert claim.outcome == Outcome("succeeded", {"answer": "a"})


def test_a_message_without_a_record_is_run(desk: Desk) -> None:
    assert desk.begin("unheard of").verdict == "run"
    assert desk.finish("unheard of") == 0
    assert finished(desk.ledger.find("unheard of")) is None


def test_a_task_ends_once_whoever_says_so_again(desk: Desk) -> None:
    desk.put("a")
    desk.begin("a")
    assert desk.finish("a", FAILED) == 0
    assert desk.finish("a") is None
    assert desk.record("a").state == "failed"
    assert [letter.record.id for letter in finished(desk.ledger.dead())] == ["a"]


def test_an_error_comes_back_as_what_it_was_and_an_unknown_one_by_its_name(desk: Desk) -> None:
    desk.put("a")
    desk.finish("a", FAILED)
    outcome = desk.record("a").outcome
    assert outcome is not None
    assert isinstance(outcome.error, ClientError)
    assert (outcome.error.status, outcome.error.code) == (422, "VALIDATION_ERROR")
    strange = Outcome.loads("failed", b'{"error": {"type": "KeyError", "args": ["secret"]}}')
    assert isinstance(strange.error, JobFailed)
    assert strange.error.cause == "KeyError"


def test_a_job_that_waits_for_too_long_is_too_old_to_run(desk_with: Callable[..., Desk]) -> None:
    desk = desk_with(max_age=0.000001)
    desk.put("a")
    assert desk.begin("a").verdict == "old"
    assert finished(desk.ledger.overdue()) == ["a"]


# --- submissions: the same work is the same job


@pytest.mark.parametrize(("state", "lasting", "stands"), [
    ("waiting", True, True),
    ("running", True, True),
    ("succeeded", True, True),
    ("failed", True, False),
    ("cancelled", True, False),
    ("waiting", False, True),
    ("running", False, True),
    ("succeeded", False, False),
])  # fmt: skip
def test_the_same_work_submitted_again(desk: Desk, state: str, lasting: bool, stands: bool) -> None:
    desk.submit("first", lasting=lasting)
    if state != "waiting":
        desk.begin("first")
    if state == "failed":
        desk.finish("first", FAILED)
    if state == "succeeded":
        desk.finish("first")
    if state == "cancelled":
        desk.finish("first", Outcome("cancelled"))

    sent, name, _ = desk.submit("second", lasting=lasting)
    assert (sent, name) == ((False, "first") if stands else (True, "second"))


def test_force_is_a_new_job_whatever_stands(desk: Desk) -> None:
    desk.submit("first")
    assert desk.submit("second", force=True)[:2] == (True, "second")
    assert desk.submit("third")[:2] == (False, "second"), "and it is the one that stands from then on"


def test_a_submitter_that_died_halfway_holds_nobody_up_for_more_than_a_minute(desk: Desk) -> None:
    desk.submit("a1", job="first", parts=("a1", "a2"), whole=False)
    assert desk.submit("b1", job="second", parts=("b1", "b2"), whole=False)[:2] == (False, "first")
    accepted = int(desk.client.hget("bridge:job:first", "accepted") or 0)
    desk.client.hset("bridge:job:first", "accepted", accepted - 61_000_000)
    assert desk.submit("b1", job="second", parts=("b1", "b2"), whole=False)[:2] == (True, "b1")


def test_jobs_are_found_by_their_correlation_id_and_their_file(desk: Desk) -> None:
    desk.submit("a", file=keys.file_digest("/docs/a.md"))
    desk.submit("b", key="other", file=keys.file_digest("/docs/a.md"))
    assert finished(desk.ledger.by_correlation("cid")) == ["a", "b"]
    assert finished(desk.ledger.by_file("/docs/a.md")) == "b"
    assert finished(desk.ledger.by_file("/docs/b.md")) is None


# --- jobs of several tasks


def test_a_chain_ends_with_its_last_step(desk: Desk) -> None:
    desk.put("one", job="last", part="last", submission=Submission("last", "k", True, False, ("last",), "chain"))
    desk.begin("one")
    assert desk.record("last").state == "running"
    desk.put("last", job="last", part="last")
    desk.finish("one")
    assert desk.record("last").state == "waiting"
    desk.begin("last")
    desk.finish("last")
    assert desk.record("last").state == "succeeded"


def test_a_chain_fails_with_any_step_and_says_why(desk: Desk) -> None:
    desk.put("one", job="last", part="last", submission=Submission("last", "k", True, False, ("last",), "chain"))
    desk.finish("one", FAILED)
    record = desk.record("last")
    assert record.state == "failed"
    assert record.outcome is not None
    assert isinstance(record.outcome.error, ClientError)
    assert [letter.record.id for letter in finished(desk.ledger.dead())] == ["one"], (
        "the step is what can be replayed"
    )


def test_a_group_ends_with_its_last_member_and_fails_if_one_did(desk: Desk) -> None:
    desk.submit("a", job="group", parts=("a", "b"), whole=False)
    desk.put("b", job="group", part="b")
    desk.finish("a", FAILED)
    assert desk.record("group").state == "waiting"
    desk.finish("b")
    assert desk.record("group").state == "failed"


def test_replaying_a_dead_letter_revives_the_job_that_it_failed(desk: Desk) -> None:
    desk.submit("a", job="group", parts=("a", "b"), whole=False)
    desk.put("b", job="group", part="b")
    desk.finish("a", FAILED)
    desk.finish("b")
    assert finished(desk.ledger.replay("a"))
    assert not finished(desk.ledger.replay("a")), "once"
    assert desk.record("group").state == "waiting"
    assert finished(desk.ledger.dead()) == []
    assert desk.begin("a").verdict == "run"
    desk.finish("a")
    assert desk.record("group").state == "succeeded"


def test_a_dropped_dead_letter_cannot_be_replayed(desk: Desk) -> None:
    desk.put("a")
    desk.finish("a", FAILED)
    assert finished(desk.ledger.drop("a"))
    assert not finished(desk.ledger.replay("a"))
    assert desk.record("a").state == "failed"


def test_only_so_many_dead_letters_are_kept_and_the_oldest_go(desk_with: Callable[..., Desk]) -> None:
    desk = desk_with(dead_letters=2)
    dropped = []
    for name in "abcd":
        desk.put(name)
        dropped.append(desk.finish(name, FAILED))
    assert dropped == [0, 0, 1, 1]
    assert [letter.record.id for letter in finished(desk.ledger.dead())] == ["d", "c"]


# --- cancelling, and waiting


def test_what_has_not_begun_can_be_cancelled_and_what_runs_goes_on(desk: Desk) -> None:
    desk.submit("a")
    assert finished(desk.ledger.cancel("a")) == "cancelled"
    assert desk.begin("a").verdict == "cancelled"
    desk.submit("b", key="b")
    desk.begin("b")
    assert finished(desk.ledger.cancel("b")) == "running"
    assert finished(desk.ledger.cancel("unheard of")) == ""


def test_a_cancelled_chain_takes_no_further_step(desk: Desk) -> None:
    desk.put("one", job="last", part="last", submission=Submission("last", "k", True, False, ("last",), "chain"))
    desk.begin("one")
    assert finished(desk.ledger.cancel("last")) == "cancelled"
    assert desk.put("last", job="last", part="last")[0] is False
    assert desk.client.zcard(keys.OPEN + QUEUE) == 1, "only the step that runs is open"


def test_a_cancelled_group_s_members_that_wait_never_run(desk: Desk) -> None:
    desk.submit("a", job="group", parts=("a", "b"), whole=False)
    desk.put("b", job="group", part="b")
    desk.begin("a")
    finished(desk.ledger.cancel("group"))
    assert desk.begin("b").verdict == "cancelled"
    assert desk.record("a").state == "running"


def test_whoever_waits_is_told_once_and_asked_again_after_nothing(desk: Desk) -> None:
    for name in "abc":
        desk.submit(name, key=name)
    desk.finish("a")
    finished(desk.ledger.cancel("c"))
    found = outcomes_of(desk.client, desk.ledger, ["a", "b", "c", "unheard of"], timeout=10)
    outcomes = dict(next(found) for _ in range(3))
    assert outcomes["a"].result == {"answer": "a"}
    assert isinstance(outcomes["c"].error, JobCancelled)
    assert isinstance(outcomes["unheard of"].error, JobUnknown)
    desk.finish("b", FAILED)
    name, outcome = next(found)
    assert name == "b"
    assert isinstance(outcome.error, ClientError)
    assert list(found) == []
    assert desk.client.hget("bridge:job:b", "to") is None


def test_waiting_ends_with_its_time(desk: Desk) -> None:
    desk.submit("a")
    with pytest.raises(TimeoutError, match="1 jobs have not ended after"):
        list(outcomes_of(desk.client, desk.ledger, ["a"], timeout=0.05))


def test_nothing_that_the_ledger_writes_stays_for_ever(client: redis.Redis, desk: Desk) -> None:
    desk.submit("a", file="f")
    desk.submit("b", job="group", key="g", parts=("b", "c"), whole=False)
    desk.begin("a")
    desk.finish("a")
    desk.finish("b", FAILED)
    stay = {
        b"bridge:queues",
        b"bridge:workers",
        b"bridge:dead",
        b"bridge:open:bridge.metadata",
        b"bridge:totals",
        b"bridge:examples",
        b"bridge.metadata",
    }
    for key in client.scan_iter():
        assert client.ttl(key) > 0 or key in stay, key
