"""A Python program that orchestrates: it submits work, waits for it, changes its mind, and meets failures."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from blake3 import blake3
from celery import group
from celery.canvas import Signature
from kombu.exceptions import OperationalError

from bridge_tasks import Bridge, workflows
from bridge_tasks.errors import ContentUnavailable, InvalidRequest, JobCancelled
from bridge_tasks.messages import HEADER
from bridge_tasks.models.content import InlineContent
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.sending import batches
from bridge_tasks.tasks import check_health, generate_hash
from tests.tasks.sending import inline
from tests.workers import PATIENCE, Pool, eventually, orchestrating


def hashing(text: str) -> Any:
    return generate_hash.s(content=inline(text))


def test_an_orchestrator_stamps_a_directory(pool: Pool, documents: Path) -> None:
    bridge = Bridge()
    pages = [documents / "guide.md", documents / "auth" / "login.py"]
    jobs = {
        bridge.submit(
            workflows.stamp_file(page, context="authentication"), correlation_id=f"tour-{pool.name}"
        ): page
        for page in pages
    }

    outcomes = list(bridge.as_completed(jobs, timeout=PATIENCE))

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert {jobs[outcome.job]: outcome.result["path"] for outcome in outcomes} == {
        page: str(page) for page in pages
    }
    assert {job.state for job in jobs} == {"succeeded"}


@pytest.mark.usefixtures("prefork")
def test_tasks_and_chains_that_are_submitted_together_are_jobs_as_if_each_had_been_submitted_alone(
    documents: Path,
) -> None:
    bridge, page = Bridge(), documents / "guide.md"
    alone = bridge.submit(hashing("alone"))

    one, chained, again, stands = bridge.submit_all(
        [hashing("one"), workflows.stamp_file(page, context="together"), hashing("one"), hashing("alone")],
        correlation_id="together-1",
    )

    ended = {outcome.job: outcome.result for outcome in bridge.as_completed([one, chained, alone], PATIENCE)}
    assert ended[chained]["path"] == str(page)
    assert ended[one]["hash"] == blake3(b"one").hexdigest()
    assert (again.id, again.stands, stands.id, stands.stands) == (one.id, True, alone.id, True)
    assert {job.id for job in bridge.find(correlation_id="together-1")} == {one.id, chained.id}


@pytest.mark.usefixtures("prefork")
def test_the_first_of_much_work_is_on_record_before_the_second_is_prepared() -> None:
    bridge, known = Bridge(), []

    def works() -> Iterator[Signature[Any]]:
        for number in range(4):
            known.append(len(bridge.find(correlation_id="in-turn")))
            yield hashing(f"in turn {number}")

    assert len(bridge.submit_all(works(), correlation_id="in-turn", force=True)) == 4
    assert known == [0, 1, 1, 3]


def test_much_work_goes_out_in_ever_larger_parts() -> None:
    assert [len(some) for some in batches(range(200))] == [1, 2, 4, 8, 16, 32, 50, 50, 37]
    assert [one for some in batches("abcdefg") for one in some] == list("abcdefg")
    assert list(batches([])) == []


@pytest.mark.usefixtures("prefork")
def test_the_id_that_is_submitted_with_is_every_step_s_whatever_was_built_into_the_work(documents: Path) -> None:
    work = workflows.stamp_file(documents / "guide.md", context="whose", correlation_id="the-builder-s")

    job = Bridge().submit(work, correlation_id="the-submitter-s", force=True)

    job.result(PATIENCE)
    assert job.correlation_id == job.record.correlation_id == "the-submitter-s"
    assert Bridge().find(correlation_id="the-submitter-s") == [job]
    assert {step.options["headers"][HEADER] for step in work.tasks} == {"the-builder-s"}, "the work is a copy's"


@pytest.mark.parametrize(
    "work",
    ["README.md", None, [hashing("listed")], workflows.stamp_files, 7],
    ids=lambda work: type(work).__name__,
)
def test_what_is_no_work_is_refused_and_told_what_would_be(work: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"work: is a .*: submit a task's"):
        Bridge().submit(work)
    with pytest.raises(InvalidRequest, match=r"work: is a .*: submit a task's"):
        Bridge().submit_all([work])


@pytest.mark.parametrize("sources", ["README.md", Path("README.md"), InlineContent.of(b"text")])
def test_one_source_is_no_run_of_many(sources: Any) -> None:
    with pytest.raises(InvalidRequest, match="sources: is one source: give a list of them"):
        workflows.stamp_files(sources, context="c")


@pytest.mark.usefixtures("prefork")
def test_what_begins_with_several_messages_is_refused_among_others_and_nothing_of_it_is_sent() -> None:
    bridge = Bridge()
    with pytest.raises(InvalidRequest, match="submit it by itself"):
        bridge.submit_all([group(hashing("left"), hashing("right"))], correlation_id="together-2")
    assert bridge.find(correlation_id="together-2") == []


def test_outcomes_come_as_jobs_end_not_as_they_were_submitted(prefork: Pool) -> None:
    bridge = Bridge()
    prefork.sandbox.order({"kind": "hang", "path": "/hash", "count": 1})
    slow = bridge.submit(hashing("slow"), correlation_id="slow")
    assert eventually(lambda: prefork.sandbox.asked("slow", "/hash"))
    quick = bridge.submit(hashing("quick"))

    outcomes = bridge.as_completed([slow, quick], timeout=PATIENCE)
    assert next(outcomes).job == quick
    prefork.sandbox.heal()  # the hang ends in a closed connection, and the job is tried again
    assert next(outcomes).job == slow
    assert list(outcomes) == []


@pytest.mark.usefixtures("prefork")
def test_a_failed_job_s_outcome_is_its_error_and_the_others_are_not_held_up(documents: Path) -> None:
    bridge = Bridge()
    page = documents / "guide.md"
    good = bridge.submit(workflows.stamp_file(page, context="c"))
    failing = bridge.submit(generate_hash.s(content={"kind": "file", "path": str(page), "size": 1}))

    outcomes = {outcome.job: outcome for outcome in bridge.as_completed([good, failing], timeout=PATIENCE)}
    assert isinstance(outcomes[failing].error, ContentUnavailable)
    assert outcomes[failing].result is None
    assert outcomes[good].error is None


def test_waiting_ends_with_the_timeout_and_the_job_goes_on(prefork: Pool) -> None:
    bridge = Bridge()
    prefork.sandbox.order({"kind": "hang", "path": "/hash", "count": 1})
    job = bridge.submit(hashing("patience"))

    with pytest.raises(TimeoutError, match=r"1 jobs have not ended after 0\.2 s"):
        list(bridge.as_completed([job], timeout=0.2))
    with pytest.raises(TimeoutError, match=f"job {job.id} has not ended after 0.1 s"):
        job.result(timeout=0.1)
    prefork.sandbox.heal()
    assert job.result(PATIENCE)["file_size_bytes"] == 8


def test_a_cancelled_job_that_had_not_begun_never_runs(prefork: Pool) -> None:
    bridge = Bridge()
    prefork.sandbox.order({"kind": "hang", "path": "/hash", "count": 2})
    busy = [bridge.submit(hashing(f"busy {number}"), correlation_id="busy") for number in range(2)]
    assert eventually(lambda: len(prefork.sandbox.asked("busy", "/hash")) == 2)
    waiting = bridge.submit(hashing("waiting"), correlation_id="waiting")

    waiting.cancel()
    prefork.sandbox.heal()

    (outcome,) = bridge.as_completed([waiting], timeout=PATIENCE)
    assert isinstance(outcome.error, JobCancelled)
    assert waiting.state == "cancelled"
    assert [job.result(PATIENCE)["file_size_bytes"] for job in busy] == [6, 6]
    assert prefork.sandbox.asked("waiting") == []


def test_no_jobs_complete_at_once() -> None:
    assert list(Bridge().as_completed([], timeout=0)) == []


def test_a_group_is_one_job_whose_result_is_the_list_of_its_members(prefork: Pool) -> None:
    bridge = Bridge()
    job = bridge.submit(group(hashing(text) for text in ("a", "bb", "ccc")))
    alone = bridge.submit(hashing("alone"))

    results = {outcome.job: outcome.result for outcome in bridge.as_completed([job, alone], timeout=PATIENCE)}
    assert [each["file_size_bytes"] for each in results[job]] == [1, 2, 3]
    assert job.state == "succeeded"
    assert len(prefork.sandbox.asked(path="/hash")) == 4


@pytest.mark.usefixtures("prefork")
def test_a_group_of_one_is_a_group() -> None:
    bridge = Bridge()
    (only,) = bridge.submit(group([hashing("only one")])).result(PATIENCE)
    assert only["file_size_bytes"] == 8
    (again,) = bridge.submit(group([hashing("only one")])).result(PATIENCE)
    assert again == only, "the group stands"
    assert bridge.submit(hashing("only one")).result(PATIENCE)["hash"] == only["hash"]


def test_without_redis_submitting_fails_soon_and_clearly_and_works_again_with_it() -> None:
    with PrivateRedis() as server, orchestrating({"BRIDGE_REDIS_URL": server.url}):
        bridge = Bridge()
        bridge.submit(check_health.s())
        server.kill()
        began = time.monotonic()
        with pytest.raises(OperationalError):
            bridge.submit(check_health.s())
        assert time.monotonic() - began < 10

        server.start()
        bridge.submit(check_health.s())
        with redis.Redis.from_url(server.url) as client:
            assert client.llen("bridge.metadata") == 1
