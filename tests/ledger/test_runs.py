"""Runs in Redis: the counts of a run are those of its files, whatever is noted twice, late or never."""

import random
from uuid import uuid4

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.errors import ClientError
from bridge_tasks.ledger import Outcome, keys
from bridge_tasks.ledger.packing import FileOutcome, RunFile
from bridge_tasks.ledger.runs import alone_job, chunk_job
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.ledger.run_desk import RunDesk
from tests.never_suspending import finished

STAMPED = FileOutcome("succeeded", "ab" * 32, "stamp-1", "cd" * 32)
DEGRADED = FileOutcome("succeeded", "ab" * 32, "stamp-2", "cd" * 32, degraded=True)
REFUSED = FileOutcome("failed", error=("InvalidRequest", "content.path: does not exist"))
DROPPED = FileOutcome("cancelled")
ALONE = FileOutcome(None, alone=True)

NO = Outcome("failed", error=ClientError("it said no", 422))
YES = Outcome("succeeded", {"hash": "ab" * 32, "stamp_id": "stamp-3", "degraded": False, "path": "/a"})
POORLY = Outcome(
    "succeeded", {"hash": "ab" * 32, "stamp_id": "stamp-4", "degraded": True, "path": '"degraded":true'}
)
NEVER = Outcome("cancelled")


@pytest.fixture
def run(client: redis.Redis) -> RunDesk:
    return RunDesk(client)


def test_a_run_ends_when_it_is_sealed_and_all_its_files_have_ended(run: RunDesk) -> None:
    run.add(0)
    assert (run.progress.state, run.progress.waiting) == ("submitting", 3)
    run.settle(0, STAMPED, DEGRADED, STAMPED)
    assert not run.progress.done
    run.seal()
    at = run.progress
    assert (at.state, at.done, at.over, at.degraded, at.settled) == ("succeeded", True, 3, 1, 1)
    run.agree()


def test_an_empty_run_ends_when_it_is_sealed(run: RunDesk) -> None:
    run.seal()
    assert (run.progress.state, run.progress.done) == ("succeeded", True)


def test_what_became_of_a_chunk_is_noted_once(run: RunDesk) -> None:
    run.add(0)
    assert run.settle(0, STAMPED, REFUSED, STAMPED)
    assert not run.settle(0, REFUSED, REFUSED, REFUSED)
    assert [one.state for one in run.outcomes(0)] == ["succeeded", "failed", "succeeded"]
    run.agree()


def test_a_chunk_is_added_once_and_none_to_a_run_that_takes_no_more(run: RunDesk) -> None:
    assert run.add(0) == "added"
    assert run.add(0) == "there"
    run.seal()
    assert run.add(1) == "refused"
    assert run.progress.total == 3
    run.client.flushdb()
    assert run.add(1) == "unknown"


def test_files_that_go_on_alone_count_when_they_end(run: RunDesk) -> None:
    run.add(0)
    run.seal()
    good, bad, poor = (run.send_alone(0, index) for index in range(3))
    run.finish(good, YES)
    run.agree()
    run.settle(0, ALONE, ALONE, ALONE)
    run.agree()
    run.finish(bad, NO)
    run.finish(poor, POORLY)
    at = run.progress
    assert (at.succeeded, at.failed, at.degraded, at.state) == (2, 1, 1, "failed")
    assert run.outcomes(0)[1].error == ("ClientError", "it said no")
    run.agree()


def test_a_file_that_was_stamped_both_alone_and_in_its_chunk_counts_once(run: RunDesk) -> None:
    """A worker died after it had sent the file on, before it could say so; another one did the chunk again."""
    run.add(0)
    early, late = run.send_alone(0, 0), run.send_alone(0, 1)
    run.finish(early, YES)
    run.settle(0, STAMPED, STAMPED, STAMPED)
    run.finish(late, NO)
    run.seal()
    assert run.progress.succeeded == 3
    run.agree()


def test_a_chunk_that_came_to_nothing_fails_all_its_files_until_it_is_replayed(run: RunDesk) -> None:
    run.add(0)
    run.seal()
    run.finish(chunk_job(run.name, 0), NO)
    assert (run.progress.failed, run.progress.done) == (3, True)
    assert {one.error for one in run.outcomes(0)} == {("ClientError", "it said no")}
    run.agree()

    assert finished(run.ledger.replay(chunk_job(run.name, 0)))
    assert (run.progress.failed, run.progress.done) == (0, False)
    run.agree()
    run.settle(0, STAMPED, STAMPED, STAMPED)
    assert run.progress.state == "succeeded"
    run.agree()


def test_a_chunk_that_was_given_up_and_is_done_after_all_counts_as_done(run: RunDesk) -> None:
    run.add(0)
    run.seal()
    run.finish(run.send_alone(0, 2), YES)
    run.finish(chunk_job(run.name, 0), NO)
    run.agree()
    assert run.settle(0, STAMPED, STAMPED, ALONE)
    assert (run.progress.succeeded, run.progress.failed) == (3, 0)
    run.agree()


def test_a_dead_file_that_is_replayed_is_under_way_again(run: RunDesk) -> None:
    run.add(0)
    run.seal()
    run.settle(0, STAMPED, STAMPED, ALONE)
    dead = run.send_alone(0, 2)
    run.finish(dead, NO)
    assert run.progress.done
    finished(run.ledger.replay(dead))
    assert not run.progress.done
    run.agree()
    run.finish(dead, YES)
    assert run.progress.state == "succeeded"
    run.agree()


def test_what_has_not_begun_ends_with_the_run_that_is_stopped(run: RunDesk) -> None:
    for number in range(4):
        run.add(number, send=number != 3)  # the submitter died before it could send the last one
    run.settle(0, STAMPED, STAMPED, ALONE)
    waiting = run.send_alone(0, 2)
    run.begin(chunk_job(run.name, 1))

    assert run.stop()

    assert run.progress.state == "cancelled"
    assert [len([o for o in run.outcomes(number) if o.state == "cancelled"]) for number in range(4)] == [
        1,
        0,
        3,
        3,
    ]
    assert run.begin(waiting).verdict == run.begin(chunk_job(run.name, 2)).verdict == "cancelled"
    assert not run.progress.done, "a worker is at a chunk"
    run.settle(1, STAMPED, DROPPED, DROPPED)
    assert run.progress.done
    run.agree()
    assert run.add(4, send=False) == "refused"


def test_a_chunk_whose_message_comes_after_all_may_say_what_became_of_it(run: RunDesk) -> None:
    run.add(0, send=False)
    run.stop()
    assert run.progress.done
    assert run.settle(0, DROPPED, DROPPED, DROPPED)
    assert (run.progress.cancelled, run.progress.done) == (3, True)
    run.agree()


def test_a_run_that_has_ended_cannot_be_stopped(run: RunDesk) -> None:
    run.add(0)
    run.settle(0, STAMPED, STAMPED, STAMPED)
    run.seal()
    assert not run.stop()
    assert run.progress.state == "succeeded"
    assert not finished(run.runs.stop(str(uuid4())))


def test_of_each_file_the_place_of_its_latest_outcome_is_known(run: RunDesk) -> None:
    run.add(0, folder="same")
    files = finished(run.runs.files(run.name, 0)) or []
    assert finished(run.runs.before(files)) == [f"{run.name}|0|{index}" for index in range(3)]
    name, file, outcome = finished(run.runs.at(f"{run.name}|0|1")) or ("", None, None)
    assert (name, file, outcome) == (run.name, files[1], FileOutcome(None))
    inline = RunFile({"kind": "inline", "data": "eA=="}, "inline (1 bytes)", "docs")
    refused = RunFile({"kind": "file", "path": "/gone"}, "/gone", "", refused="does not exist")
    assert finished(run.runs.before([inline, refused])) == [None, None]
    assert finished(run.runs.at("no place")) is finished(run.runs.at(f"{run.name}|7|1")) is None


def test_the_latest_runs_are_listed_latest_first(run: RunDesk) -> None:
    later = RunDesk(run.client)
    assert finished(run.runs.listed()) == [later.name, run.name]
    assert finished(run.ledger.by_correlation("night-7")) == [run.name, later.name]


def test_nothing_of_a_run_is_kept_for_ever(run: RunDesk) -> None:
    run.add(0)
    run.settle(0, STAMPED, STAMPED, ALONE)
    run.finish(run.send_alone(0, 2), NO)
    run.seal()
    lasting = {keys.OPEN, keys.RUNS, keys.QUEUES, keys.DEAD, keys.TOTALS, keys.EXAMPLES, "bridge.metadata"}
    held = [name.decode() for name in run.client.scan_iter("*")]
    assert [name for name in held if run.client.ttl(name) < 0 and not name.startswith(tuple(lasting))] == []


MOVES = (
    "settle",
    "settle again",
    "alone ends",
    "chunk fails",
    "chunk expires",
    "replay chunk",
    "replay alone",
    "stop",
)


@given(seed=st.integers(0, 2**32), moves=st.lists(st.sampled_from(MOVES), max_size=25))
def test_the_counts_are_those_of_the_files_whatever_happens_in_whatever_order(
    ledger_server: PrivateRedis, seed: int, moves: list[str]
) -> None:
    chance = random.Random(seed)
    with redis.Redis.from_url(ledger_server.url) as client:
        run = RunDesk(client)
        for number in range(3):
            run.add(number)
        for move in moves:
            number, index = chance.randrange(3), chance.randrange(3)
            match move:
                case "settle" | "settle again":
                    run.settle(number, *chance.choices([STAMPED, DEGRADED, REFUSED, DROPPED, ALONE], k=3))
                case "alone ends":
                    run.finish(run.send_alone(number, index), chance.choice([YES, NO, POORLY, NEVER]))
                case "chunk fails":
                    run.finish(chunk_job(run.name, number), NO)
                case "chunk expires":
                    run.finish(chunk_job(run.name, number), NEVER)
                case "replay chunk":
                    finished(run.ledger.replay(chunk_job(run.name, number)))
                case "replay alone":
                    finished(run.ledger.replay(alone_job(run.name, number, index)))
                case "stop":
                    run.stop()
            run.agree()
        run.seal()
        run.agree()
