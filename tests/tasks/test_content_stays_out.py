"""A message carries where the content is; nobody who watches queues, events or logs sees any of it."""

import ast
import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge_tasks import workflows
from bridge_tasks.app import app
from bridge_tasks.errors import BridgeError
from bridge_tasks.models.content import InlineContent, UrlContent
from bridge_tasks.sandbox.server import running
from bridge_tasks.tasks import create_stamp, generate_hash, stamp_file
from tests.content.hosts import Host
from tests.tasks.sending import done, inline
from tests.workers import PATIENCE, Pool, eventually, memory

SECRET = "hunter2-swordfish"
ENCODED = base64.b64encode(SECRET.encode()).decode().rstrip("=")
HUGE = 400 * 1024 * 1024
SMALL_MESSAGE = 2048
MEMORY = 64 * 1024 * 1024


def shows_it(text: str) -> bool:
    return SECRET in text or ENCODED in text


@pytest.fixture
def huge(documents: Path) -> Iterator[Path]:
    path = documents / "huge.bin"
    path.touch()
    os.truncate(path, HUGE)
    yield path
    path.unlink()


def message(queue: redis.Redis, name: str = "bridge.metadata") -> bytes:
    raw = queue.lpop(name)
    assert isinstance(raw, bytes)
    return raw


def test_the_message_of_a_400_mb_file_is_under_2_kb(idle: redis.Redis, huge: Path) -> None:
    generate_hash.delay(content={"kind": "file", "path": str(huge)})
    assert len(message(idle)) < SMALL_MESSAGE

    workflows.stamp_file_job(huge, context="authentication").apply_async()
    assert len(message(idle)) < SMALL_MESSAGE


def test_a_message_s_headers_describe_the_job_and_hold_no_content(idle: redis.Redis) -> None:
    content = InlineContent.of(SECRET.encode())
    stamp_file.apply_async(
        kwargs={
            "content": content,
            "file_path": "/docs/a.md",
            "context": "login",
            "stamp_data": {"note": SECRET},
        },
        headers={"x-correlation-id": "run-7"},
    )
    headers = json.loads(message(idle))["headers"]

    assert ast.literal_eval(headers["kwargsrepr"]) == {
        "cid": "run-7",
        "content": "inline (17 bytes)",
        "file_path": "/docs/a.md",
        "namespace": "omninode.services.metadata",
        "context": "login",
    }
    assert headers["argsrepr"] == "()"
    assert not shows_it(json.dumps(headers))


def test_a_url_is_described_without_its_query(idle: redis.Redis) -> None:
    generate_hash.delay(content=UrlContent(url=f"http://127.0.0.1:8000/a.md?token={SECRET}"))
    headers = json.loads(message(idle))["headers"]

    assert "'content': 'http://127.0.0.1/a.md'" in headers["kwargsrepr"]
    assert not shows_it(json.dumps(headers))


def test_the_steps_that_travel_in_a_chain_s_message_are_described_when_their_turn_comes(
    idle: redis.Redis,
) -> None:
    workflows.stamp_file(
        InlineContent.of(SECRET.encode()), context="login", stamp_data={"note": SECRET}
    ).apply_async()
    headers = json.loads(message(idle))["headers"]
    assert not shows_it(json.dumps(headers))


@contextmanager
def overheard() -> Iterator[list[dict[str, Any]]]:
    """Every event that workers and this process send, as Flower receives them."""
    heard: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": heard.append})
        listening = threading.Thread(target=lambda: receiver.capture(limit=None, timeout=None, wakeup=False))
        listening.start()
        # Pub/sub keeps nothing: begin only once something was heard, and a worker's heart beats every two seconds.
        assert eventually(lambda: heard)
        yield heard
        receiver.should_stop = True
        listening.join(PATIENCE)


def test_no_event_and_no_log_line_shows_content_whether_jobs_succeed_or_fail(prefork: Pool) -> None:
    stamp: dict[str, Any] = {
        "file_hash": "ab" * 32,
        "file_path": "/a.md",
        "file_size": 2,
        "stamp_data": {"note": SECRET},
    }
    with overheard() as heard, running(Host()) as host:
        done("generate_hash", content=inline(SECRET))
        done("generate_hash", content={"kind": "url", "url": f"{host}/ok?token={SECRET}"})
        done("stamp_file", content=inline(SECRET), file_path="/a", context="c", stamp_data={"note": SECRET})
        failures: list[Callable[[], object]] = [
            lambda: done("generate_hash", content={"kind": "inline", "data": f"?{SECRET}"}),
            lambda: done("generate_hash", content={"kind": SECRET}),
            lambda: done("generate_hash", content={"kind": "url", "url": f"{host}/status/404?token={SECRET}"}),
            lambda: done("create_stamp", **stamp, content={"kind": "file", "path": "/etc/shadow"}),
            lambda: create_stamp.delay(**stamp).get(timeout=PATIENCE),  # the service wants content: 422
        ]
        for failing in failures:
            with pytest.raises(BridgeError) as failure:
                failing()
            assert not shows_it(str(failure.value))
        assert eventually(lambda: sum(event["type"] == "task-failed" for event in heard) == 5)

    assert {"task-sent", "task-received", "task-started", "task-succeeded"} <= {event["type"] for event in heard}
    assert [event for event in heard if shows_it(json.dumps(event, default=str))] == []
    assert "job failed" in prefork.log()
    assert not shows_it(prefork.log())


def test_a_400_mb_file_is_hashed_in_little_memory(prefork: Pool, huge: Path) -> None:
    children = prefork.children()
    for child in children:
        Path(f"/proc/{child}/clear_refs").write_text("5")  # the peak begins anew at what is used now
    idle = {child: memory(child, "VmRSS") for child in children}

    hashed = done("generate_hash", content={"kind": "file", "path": str(huge), "size": HUGE})

    assert hashed["file_size_bytes"] == HUGE
    assert prefork.children() == children
    assert max(memory(child, "VmHWM") - idle[child] for child in children) < MEMORY
