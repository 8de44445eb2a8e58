"""One correlation id for one piece of work: in every message, every HTTP request and every log line."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import chain, chord, group
from celery.app.trace import trace_task

from bridge_tasks import correlation, workflows
from bridge_tasks.app import app
from bridge_tasks.bridge import Bridge
from bridge_tasks.errors import ClientError, InvalidRequest
from bridge_tasks.messages import HEADER
from bridge_tasks.tasks import check_health, create_stamp, generate_hash, get_intelligence, get_stamp
from tests.tasks.sending import inline
from tests.workers import PATIENCE, Pool, eventually

CONTENT = inline("to be correlated")


def raw_chain() -> Any:
    """The three steps put together by hand, without our builder."""
    return (
        generate_hash.s(content=CONTENT)
        | get_intelligence.s(context="authentication", use_cache=False)
        | create_stamp.s(content=CONTENT, file_path="a.md")
    )


def chord_of_hashes() -> Any:
    return chord([generate_hash.s(content=CONTENT), generate_hash.s(content=CONTENT)], check_health.si())


def group_of_hashes() -> Any:
    return chord(group(generate_hash.s(content=CONTENT) | get_stamp.s() for _ in range(2)), check_health.si())


def linked() -> Any:
    return generate_hash.s(content=CONTENT).on_error(check_health.si()) | get_stamp.s()


WORK: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "a chain by hand": (raw_chain, ["generate_hash", "get_intelligence", "create_stamp"]),
    "a chord": (chord_of_hashes, ["generate_hash", "generate_hash", "check_health"]),
    "chains in a chord": (group_of_hashes, ["generate_hash"] * 2 + ["get_stamp"] * 2 + ["check_health"]),
    "a chain with an error callback": (linked, ["generate_hash", "get_stamp"]),
}


def told(pool: Pool, cid: str, tasks: list[str]) -> list[str]:
    """The tasks that the log tells of under this id, once they are all there."""

    def lines() -> list[str]:
        return [line["task"].removeprefix("bridge.") for line in pool.lines(correlation_id=cid) if "task" in line]

    eventually(lambda: len(lines()) >= len(tasks))
    return lines()


def cids(pool: Pool) -> set[str | None]:
    """The ids of all requests that reached the services."""
    return {record["headers"].get("x-correlation-id") for record in pool.sandbox.asked()}


def test_a_given_id_is_in_every_step_s_requests_and_log_lines(prefork: Pool, documents: Path) -> None:
    work = workflows.stamp_file(documents / "guide.md", context="travels", correlation_id="trip-1")
    job = Bridge().submit(work)
    job.result(PATIENCE)

    assert job.correlation_id == "trip-1"
    assert cids(prefork) == {"trip-1"}
    asked = {record["path"].rpartition("/")[2] for record in prefork.sandbox.asked("trip-1")}
    assert {"hash", "intelligence", "stamp"} <= asked
    steps = ["generate_hash", "get_intelligence", "create_stamp"]
    assert told(prefork, "trip-1", steps) == steps


@pytest.mark.parametrize("name", WORK)
def test_an_id_bound_by_the_caller_reaches_every_part_of_work_built_by_hand(prefork: Pool, name: str) -> None:
    build, tasks = WORK[name]
    cid = name.replace(" ", "-")
    with correlation.bound(cid):
        build().apply_async().get(timeout=PATIENCE)

    assert cids(prefork) == {cid}
    assert sorted(told(prefork, cid, tasks)) == sorted(tasks)


@pytest.mark.parametrize("name", WORK)
def test_without_an_id_one_is_made_and_it_is_the_same_everywhere(prefork: Pool, name: str) -> None:
    build, tasks = WORK[name]
    build().apply_async().get(timeout=PATIENCE)

    (cid,) = cids(prefork)
    assert cid
    assert sorted(told(prefork, cid, tasks)) == sorted(tasks)


def test_submitting_tells_the_id_that_was_made(prefork: Pool) -> None:
    job = Bridge().submit(raw_chain())
    job.result(PATIENCE)
    assert cids(prefork) == {job.correlation_id}


def test_an_id_given_when_submitting_wins_over_a_built_one_and_that_over_a_bound_one(
    prefork: Pool, documents: Path
) -> None:
    def built() -> Any:
        return workflows.stamp_file(documents / "guide.md", context="c", correlation_id="built")

    with correlation.bound("bound"):
        jobs = [
            Bridge().submit(check_health.s(), correlation_id="submitted"),
            Bridge().submit(built(), correlation_id="submitted"),
            Bridge().submit(built(), force=True),
            Bridge().submit(check_health.s()),
        ]
    for job in jobs:
        job.result(PATIENCE)
    assert [job.correlation_id for job in jobs] == ["submitted", "submitted", "built", "bound"]
    assert cids(prefork) == {"submitted", "built", "bound"}


def test_a_callback_and_an_error_callback_carry_it_on(prefork: Pool) -> None:
    with correlation.bound("linked"):
        generate_hash.apply_async(kwargs={"content": CONTENT}, link=get_stamp.s()).get(timeout=PATIENCE)
    assert told(prefork, "linked", ["generate_hash", "get_stamp"]) == ["generate_hash", "get_stamp"]

    prefork.sandbox.order({"kind": "status", "code": 422, "path": "/hash"})
    with correlation.bound("failed"), pytest.raises(ClientError):
        generate_hash.apply_async(kwargs={"content": CONTENT}, link_error=check_health.si()).get(timeout=PATIENCE)
    assert told(prefork, "failed", ["generate_hash", "check_health"]) == ["generate_hash", "check_health"]
    assert cids(prefork) == {"linked", "failed"}


def test_a_retry_keeps_it_and_so_do_the_steps_after(prefork: Pool) -> None:
    prefork.sandbox.order({"kind": "status", "code": 503, "path": "/hash", "count": 1})
    with correlation.bound("retried"):
        raw_chain().apply_async().get(timeout=PATIENCE)

    assert cids(prefork) == {"retried"}
    assert len(prefork.sandbox.asked("retried", "/hash")) == 2
    tasks = ["generate_hash", "generate_hash", "get_intelligence", "create_stamp"]
    assert told(prefork, "retried", tasks) == tasks


def test_a_message_from_a_stranger_without_an_id_gets_one_in_the_worker(threads: Pool) -> None:
    app.send_task("bridge.generate_hash", kwargs={"content": CONTENT}, headers={HEADER: None}).get(
        timeout=PATIENCE
    )
    (cid,) = cids(threads)
    assert correlation.PATTERN.fullmatch(cid or "")


def test_all_that_is_logged_while_a_task_runs_says_which_run_of_which_task_it_is(prefork: Pool) -> None:
    prefork.sandbox.order({"kind": "status", "code": 503, "path": "/hash", "count": 1})
    job = Bridge().submit(raw_chain(), correlation_id="logged", force=True)
    job.result(PATIENCE)

    assert eventually(lambda: [line for line in prefork.lines(correlation_id="logged") if "task" in line][3:])
    lines = prefork.lines(correlation_id="logged")
    assert {(line["job"], line["level"]) for line in lines} <= {(job.id, "info"), (job.id, "warning")}
    assert [line["attempt"] for line in lines if line.get("task") == "bridge.generate_hash"] == [1, 2]
    assert {line["task_id"] for line in lines} == {step for step, _ in job.record.steps}
    ends = [(line["task_id"], line["attempt"]) for line in lines if line["event"].startswith("job ")]
    assert len(ends) == len(set(ends)) == 4  # one line for each end, ours: Celery is silent


def test_two_pieces_of_work_side_by_side_keep_their_own(threads: Pool) -> None:
    jobs = [Bridge().submit(raw_chain(), correlation_id=f"side-{number}", force=True) for number in range(8)]
    for job in jobs:
        job.result(PATIENCE)

    for number in range(8):
        asked = [record["path"].rpartition("/")[2] for record in threads.sandbox.asked(f"side-{number}")]
        assert [end for end in asked if end != "health"] == ["hash", "intelligence", "stamp"]


def test_a_task_s_children_inherit_it(idle: redis.Redis) -> None:
    @app.task(ignore_result=True)
    def parent() -> None:
        generate_hash.delay(content=CONTENT)

    try:
        trace_task(parent, "parent-1", (), {}, request={HEADER: "inherited"}, app=app)  # as a worker's child does
    finally:
        app.tasks.pop(parent.name)
    assert json.loads(idle.lindex("bridge.metadata", 0) or b"")["headers"][HEADER] == "inherited"
    assert correlation.current() is None


def carried(message: Any) -> list[str]:
    """The ids in a message: its own, and those of all that will be published because of it."""
    parsed = json.loads(message)
    _, _, embedded = json.loads(base64.b64decode(parsed["body"]))
    ids = [parsed["headers"][HEADER]]
    waiting = [*(embedded["chain"] or []), *(embedded["callbacks"] or []), *(embedded["errbacks"] or [])]
    waiting += [embedded["chord"]] if embedded["chord"] else []
    while waiting:
        options = waiting.pop()["options"]
        ids.append(options["headers"][HEADER])
        waiting += [*(options.get("link") or []), *(options.get("link_error") or [])]
    return ids


def test_a_message_names_the_id_for_all_that_follows_even_if_its_worker_dies(idle: redis.Redis) -> None:
    # The error callbacks of a killed child are published by a process that runs no task.
    with correlation.bound("good"):
        (raw_chain() | get_stamp.s().on_error(check_health.si())).apply_async(link_error=check_health.si())
        chord_of_hashes().apply_async()

    assert carried(idle.rpop("bridge.metadata")) == ["good"] * 8
    assert carried(idle.rpop("bridge.metadata")) == ["good"] * 2


@pytest.mark.parametrize("bad", ["a\r\nb", "", 7])
def test_an_unsafe_id_is_refused_or_replaced_and_never_sent(idle: redis.Redis, bad: Any) -> None:
    with pytest.raises(InvalidRequest, match="correlation_id"):
        get_stamp.s(file_hash="ab" * 32).set(headers={HEADER: bad}).apply_async()
    assert idle.keys() == []

    later = chain(generate_hash.s(content=CONTENT), get_stamp.s().set(headers={HEADER: bad}))
    with correlation.bound("good"):
        later.apply_async()
        app.send_task("bridge.check_health", headers={HEADER: bad})  # by name: nobody refuses
    assert carried(idle.rpop("bridge.metadata")) == ["good"] * 2
    assert carried(idle.rpop("bridge.metadata")) == ["good"]
