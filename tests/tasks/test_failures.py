"""What goes wrong in a worker, and what its caller gets to see: the right error after the right number of runs."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bridge_tasks.app import app
from bridge_tasks.errors import ClientError, ContentUnavailable, InvalidRequest, ServiceUnavailableError
from bridge_tasks.tasks import generate_hash
from tests.tasks.sending import done, inline, sent
from tests.workers import PATIENCE, Pool, eventually

STAMP = {"file_hash": "ab" * 32, "file_path": "/a.md", "file_size": 2}


def refusing(code: int, **more: Any) -> dict[str, Any]:
    return {"kind": "status", "code": code, "path": "/hash", **more}


def complaint(code: str) -> dict[str, Any]:
    """A refusal as the known service words it."""
    return {"detail": {"status": "error", "data": None, "error": [{"code": code, "field": None, "message": "no"}]}}


@pytest.mark.parametrize(
    ("task", "arguments", "field", "reason"),
    [
        ("generate_hash", {"content": {"kind": "file", "path": "/etc/shadow"}}, "content.path", "outside"),
        ("generate_hash", {"content": {"kind": "file", "path": "etc/shadow"}}, "content.path", "absolute"),
        ("get_stamp", {"file_hash": "xx"}, "file_hash", "pattern"),
        ("create_stamp", {**STAMP, "namespace": "a\r\nb"}, "namespace", "pattern"),
        ("batch_create_stamps", {"items": [{**STAMP, "file_size": -1}]}, "items.0.file_size", "greater"),
        ("get_intelligence", {"context": "c", "depth": 3}, "depth", "not permitted"),
        ("check_health", {"deep": True}, "deep", "not permitted"),
    ],
)
def test_bad_arguments_come_back_as_invalid_request_with_field_and_reason(
    pool: Pool, task: str, arguments: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        done(task, **arguments)
    assert refused.value.field == field
    assert reason in refused.value.reason
    assert pool.sandbox.asked() == []


def test_arguments_by_position_come_back_as_invalid_request(prefork: Pool) -> None:
    with pytest.raises(InvalidRequest, match="give them by name"):
        app.send_task("bridge.create_stamp", args=["ab" * 32, "/a.md"]).get(timeout=PATIENCE)
    assert prefork.sandbox.asked() == []


@pytest.mark.parametrize(
    ("status", "code"), [(400, "INVALID_INPUT"), (404, "NO_SUCH"), (422, "VALIDATION_ERROR"), (500, "BROKEN")]
)
def test_a_refusal_of_the_service_comes_back_with_status_and_code_after_one_run(
    prefork: Pool, status: int, code: str
) -> None:
    prefork.sandbox.order(refusing(status, body=complaint(code)))

    with pytest.raises(ClientError) as refused:
        done("generate_hash", cid=f"once-{status}", content=inline("hello"))
    assert type(refused.value) is ClientError
    assert (refused.value.status, refused.value.code) == (status, code)
    assert len(prefork.sandbox.asked(f"once-{status}", "/hash")) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_outage_is_tried_as_often_as_allowed_and_then_comes_back_as_what_it_is(pool: Pool, status: int) -> None:
    pool.sandbox.order(refusing(status))

    with pytest.raises(ServiceUnavailableError) as out_of_order:
        done("generate_hash", cid=f"out-{status}", content=inline("hello"))
    assert (out_of_order.value.status, out_of_order.value.retryable) == (status, True)
    assert len(pool.sandbox.asked(f"out-{status}", "/hash")) == 3


def test_retry_after_is_obeyed_and_each_run_is_told_with_its_number(prefork: Pool) -> None:
    prefork.sandbox.order(refusing(503, retry_after=1, count=1))

    hashed = done("generate_hash", cid="patient", content=inline("hello"))

    assert hashed["file_size_bytes"] == 5
    first, second = prefork.sandbox.asked("patient", "/hash")
    assert second["arrived_at"] - first["arrived_at"] >= 1

    def told_of_the_job() -> list[dict[str, Any]]:
        return [line for line in prefork.lines(correlation_id="patient") if line["event"].startswith("job")]

    told = eventually(lambda: len(told_of_the_job()) == 2 and told_of_the_job())
    assert told
    assert [(line["event"], line["attempt"]) for line in told] == [("job put back", 1), ("job succeeded", 2)]


def test_a_file_that_changed_since_the_job_was_made_fails_once_and_is_not_sent(
    prefork: Pool, documents: Path
) -> None:
    path = documents / "changing.txt"
    path.write_text("before")
    with pytest.raises(ContentUnavailable, match="has changed since the job was made"):
        done("generate_hash", content={"kind": "file", "path": str(path), "size": 7})
    assert prefork.sandbox.asked() == []


@pytest.mark.parametrize(
    ("kind", "more"), [("garbage_json", {}), ("wrong_content_type", {}), ("status_error", {"message": "no"})]
)
def test_an_answer_that_makes_no_sense_is_the_service_s_failure_after_one_run(
    prefork: Pool, kind: str, more: dict[str, Any]
) -> None:
    prefork.sandbox.order({"kind": kind, "path": "/hash", **more})
    with pytest.raises(ClientError, match="Hash generation failed"):
        done("generate_hash", cid=f"nonsense-{kind}", content=inline("hello"))
    assert len(prefork.sandbox.asked(f"nonsense-{kind}", "/hash")) == 1


def test_the_deadline_in_code_holds_where_celery_s_time_limits_do_not(threads: Pool) -> None:
    # This worker gives a run one second, and a call ten: only the deadline can be what ends it.
    threads.sandbox.order({"kind": "hang", "path": "/hash", "count": 1})

    assert done("generate_hash", cid="hung", content=inline("hello"))["file_size_bytes"] == 5
    first = threads.lines(correlation_id="hung", event="job put back")[0]
    assert 1000 <= first["milliseconds"] < 3000


def test_a_killed_child_s_job_is_done_by_another(prefork: Pool) -> None:
    prefork.sandbox.order({"kind": "hang", "path": "/hash", "count": 1})
    job = sent("generate_hash", cid="killed", content=inline("hello"))
    assert eventually(lambda: prefork.sandbox.asked("killed", "/hash"))

    os.kill(_child_at(job.id), signal.SIGKILL)

    assert job.get(timeout=PATIENCE)["file_size_bytes"] == 5
    assert len(prefork.sandbox.asked("killed", "/hash")) == 2
    assert eventually(lambda: len(prefork.children()) == 2)


def _child_at(task_id: str) -> int:
    """The process that works on a task."""
    workers = app.control.inspect(timeout=PATIENCE, limit=1).active() or {}
    (pid,) = [task["worker_pid"] for tasks in workers.values() for task in tasks if task["id"] == task_id]
    return int(pid)


def test_a_task_called_directly_does_not_retry(prefork: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody would run it again: the caller gets the error at once.
    monkeypatch.setenv("BRIDGE_METADATA__URLS", prefork.sandbox.metadata)
    prefork.sandbox.order(refusing(503))
    with pytest.raises(ServiceUnavailableError):
        generate_hash(content=inline("hello"))
    assert len(prefork.sandbox.asked(path="/hash")) == 3  # the tries of one call, not runs of the task
