"""Who may only ask workers cannot end them, whatever he publishes on their channel."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from kombu.utils.json import dumps

from bridge_tasks import workflows
from bridge_tasks.app import app
from bridge_tasks.bridge import Bridge
from bridge_tasks.broker.admission import vet_order
from bridge_tasks.errors import MessageRefused
from tests.doors.conftest import NODE, Secured
from tests.workers import PATIENCE, eventually, orchestrating

REPLIES = {"exchange": "reply.celery.pidbox", "routing_key": "somebody"}


def order(method: str, reply_to: Any = None, **arguments: Any) -> dict[str, Any]:
    """An order as kombu sends it."""
    body = {"method": method, "arguments": arguments, "destination": None, "ticket": "1", "reply_to": reply_to}
    return {
        "body": dumps(body),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"clock": 1, "expires": None},
        "properties": {"delivery_info": {"exchange": "celery.pidbox", "routing_key": ""}, "delivery_tag": "t"},
    }


QUESTIONS = [
    order("ping", REPLIES),
    order("stats", REPLIES),
    order("active_queues", REPLIES),
    order("paused_queues", REPLIES),
    order("conf", REPLIES, with_defaults=False),
    order("enable_events"),
    order("hello", REPLIES, from_node="a@b", revoked={}),
]
CHANGES = [
    order("shutdown"),
    order("revoke", task_id="x", terminate=True, signal="KILL"),
    order("pool_restart", modules=["os"]),
    order("pool_shrink", n=1),
    order("add_consumer", queue="mine"),
    order("cancel_consumer", queue="bridge.metadata"),
    order("rate_limit", task_name="bridge.generate_hash", rate_limit="1/h"),
    order("time_limit", task_name="bridge.generate_hash", hard=1),
    order("disable_events"),
    order("objgraph", REPLIES, num=1),
    order("no such method"),
    order("hello", REPLIES, from_node="a@b", revoked={"x": 1.0}),
    order("ping", {"exchange": "bridge.metadata", "routing_key": "bridge.metadata"}),
    {**order("ping"), "body": orjson.dumps({"arguments": {}}).decode()},
]


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda one: orjson.loads(one["body"]).get("method"))
def test_a_question_is_heard(asked: dict[str, Any]) -> None:
    vet_order(asked, order=True, questions=True)


@pytest.mark.parametrize("told", CHANGES, ids=lambda one: orjson.loads(one["body"]).get("method"))
def test_what_changes_something_is_obeyed_only_where_all_orders_are(told: dict[str, Any]) -> None:
    vet_order(told, order=True)
    with pytest.raises(MessageRefused, match=r"body\.(method|arguments|reply_to)"):
        vet_order(told, order=True, questions=True)


def test_flower_s_user_asks_a_worker_and_cannot_end_it(secured: Secured, documents: Path) -> None:
    refused = secured.worker.log.read_text().count("message refused")
    with orchestrating(secured.environment("flower")):
        assert app.control.ping(timeout=PATIENCE, limit=1) == [{NODE: {"ok": "pong"}}]
        app.control.shutdown()
        app.control.revoke("x", terminate=True)
        assert eventually(lambda: secured.worker.log.read_text().count("message refused") == refused + 2)
        assert app.control.ping(timeout=PATIENCE, limit=1)
    with orchestrating(secured.environment("producer")):
        job = Bridge().submit(workflows.stamp_file(documents / "guide.md", context="goes on"), force=True)
        assert job.result(timeout=PATIENCE)
    assert secured.worker.running
