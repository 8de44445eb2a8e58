"""Signed messages: what nobody signed who may, or what was changed since, no worker runs."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from pydantic import SecretStr

from bridge_tasks import workflows
from bridge_tasks.app import app
from bridge_tasks.bridge import Bridge
from bridge_tasks.errors import ConfigurationError, MessageRefused
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.messages import HEADER as CID
from bridge_tasks.runtime import current
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.settings import load
from bridge_tasks.signing import HEADER, SKEW, Signer
from tests.tasks.hostile import message
from tests.tasks.sending import inline, sent
from tests.workers import PATIENCE, QUICK, Pool, database, eventually, flush, json_lines, orchestrating

KEY, OTHER = "k" * 32, "o" * 32
NOW = 1_700_000_000.0
DAY = 86_400.0


def signer(*secrets: str) -> Signer:
    return Signer([SecretStr(secret) for secret in secrets or (KEY,)], DAY)


def changed(signed: Mapping[str, Any], part: str, name: str, value: Any) -> dict[str, Any]:
    return {**signed, part: {**signed[part], name: value}}


def test_a_signature_holds_while_its_message_travels() -> None:
    signed = signer().signed(message("a"), NOW)
    signer().check(signed, NOW)
    signer().check(changed(signed, "properties", "delivery_tag", "another"), NOW + DAY)
    where = {**signed["properties"]["delivery_info"], "redelivered": True}
    again = changed(changed(signed, "headers", "redelivered", True), "properties", "delivery_info", where)
    signer().check(again, NOW)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("headers", "task", "bridge.create_stamp"),
        ("headers", "id", "b"),
        ("headers", "retries", 1),
        ("headers", "eta", "2030-01-01T00:00:00+00:00"),
        ("headers", "timelimit", [1, 1]),
        ("headers", "x-correlation-id", "b"),
        ("headers", "x-bridge-job", "b"),
        ("properties", "reply_to", "b"),
        ("properties", "delivery_info", {"exchange": "", "routing_key": "bridge.bulk"}),
    ],
)
def test_no_part_that_counts_can_be_changed(part: str, name: str, value: Any) -> None:
    signed = signer().signed(message("a"), NOW)
    with pytest.raises(MessageRefused, match="does not fit"):
        signer().check(changed(signed, part, name, value), NOW)
    with pytest.raises(MessageRefused, match="does not fit"):
        signer().check({**signed, "body": message("a", keywords={})["body"]}, NOW)


@pytest.mark.parametrize("told", [None, 7, "", "a", "a.b.c", f"{'0' * 8}.1.{'a' * 64}", "\ud800.1.\ud800"])
def test_what_is_no_signature_is_refused(told: Any) -> None:
    with pytest.raises(MessageRefused):
        signer().check(changed(message("a"), "headers", HEADER, told), NOW)


@pytest.mark.parametrize("later", [DAY + SKEW + 1, -SKEW - 1])
def test_a_signature_is_believed_for_a_time(later: float) -> None:
    signed = signer().signed(message("a"), NOW)
    with pytest.raises(MessageRefused, match="too old"):
        signer().check(signed, NOW + later)
    signer().check(signed, None)


def test_keys_change_one_process_at_a_time() -> None:
    signer(OTHER, KEY).check(signer(KEY).signed(message("a"), NOW), NOW)
    with pytest.raises(MessageRefused, match="not of a key"):
        signer(KEY).check(signer(OTHER, KEY).signed(message("a"), NOW), NOW)


@pytest.mark.parametrize("wrong", [{"SIGNING_KEYS": "short"}, {"SIGNING_KEYS": KEY, "KEEP": "3600"}])
def test_a_weak_key_is_refused_and_not_repeated(wrong: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in wrong.items():
        monkeypatch.setenv(f"BRIDGE_LEDGER__{name}", value)
    load.cache_clear()
    with pytest.raises(ConfigurationError) as failure:
        load()
    load.cache_clear()
    assert wrong["SIGNING_KEYS"] not in str(failure.value)


@pytest.fixture(scope="module")
def environment(pools: dict[str, Pool], redis_url: str, documents: Path) -> dict[str, str]:
    sandbox = pools["prefork"].sandbox
    return QUICK | {
        "BRIDGE_REDIS_URL": database(redis_url, 7),
        "BRIDGE_CONTENT__ROOTS": str(documents),
        "BRIDGE_METADATA__URLS": sandbox.metadata,
        "BRIDGE_ONEXTREE__URLS": sandbox.onextree,
        "BRIDGE_LEDGER__SIGNING_KEYS": KEY,
        "BRIDGE_LEDGER__LOOK_SECONDS": "0.3",
        "BRIDGE_LEDGER__BEAT_SECONDS": "0.2",
    }


@pytest.fixture(scope="module")
def worker(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalProcess]:
    """A worker that believes one key."""
    flush(environment["BRIDGE_REDIS_URL"])
    command = [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "-P", "threads", "-c", "2"]
    process = LocalProcess(
        [*command, "-n", "signed@%h", "-l", "INFO", "--without-mingle", "--without-gossip"],
        directory=tmp_path_factory.mktemp("signed"),
        name="signed",
        environment={**os.environ, **environment},
    )
    with process:
        process.wait_ready(lambda: " ready." in process.log.read_text(), PATIENCE)
        yield process


@pytest.fixture
def queue(worker: LocalProcess, environment: dict[str, str]) -> Iterator[redis.Redis]:
    """The worker's Redis; this process has the key."""
    with orchestrating(environment), redis.Redis.from_url(environment["BRIDGE_REDIS_URL"]) as client:
        yield client
    assert worker.running
    assert KEY not in worker.log.read_text()


def refused(worker: LocalProcess) -> list[dict[str, Any]]:
    lines = json_lines(worker.log.read_text())
    return [line for line in lines if line["event"] == "message refused"]


def test_signed_chains_and_runs_and_retries_go_through(
    worker: LocalProcess, queue: redis.Redis, documents: Path
) -> None:
    bridge = Bridge()
    assert bridge.submit(workflows.stamp_file(documents / "guide.md", context="signed")).result(timeout=PATIENCE)
    run = bridge.submit(workflows.stamp_files([documents / "auth" / "login.py"], context="signed"))
    assert run.wait(timeout=PATIENCE).succeeded == 1
    assert refused(worker) == []
    assert queue.llen("bridge.metadata") == 0


def test_what_is_not_signed_is_not_run_and_whoever_waits_for_it_hears_why(
    worker: LocalProcess, queue: redis.Redis, environment: dict[str, str], documents: Path
) -> None:
    before = len(refused(worker))
    queue.lpush("bridge.metadata", json.dumps(message(str(uuid4()))))
    assert eventually(lambda: refused(worker)[before:])
    with orchestrating(environment | {"BRIDGE_LEDGER__SIGNING_KEYS": OTHER}):
        job = Bridge().submit(workflows.stamp_file_job(documents / "guide.md", context="of a stranger"))
        with pytest.raises(MessageRefused, match="not of a key"):
            job.result(timeout=PATIENCE)


def test_a_copy_of_a_signed_message_is_not_run_again(
    worker: LocalProcess, queue: redis.Redis, pools: dict[str, Pool]
) -> None:
    cid, arguments = str(uuid4()), {"content": inline("once")}
    result = app.send_task("bridge.generate_hash", kwargs=arguments, headers={CID: cid}, queue="nobody-s")
    raw = queue.rpop("nobody-s")
    assert isinstance(raw, bytes)
    queue.lpush("bridge.metadata", raw, raw, raw)
    assert result.get(timeout=PATIENCE)
    assert sent("generate_hash", content=inline("after it")).get(timeout=PATIENCE)
    assert eventually(lambda: not queue.llen("bridge.metadata"))
    assert len(pools["prefork"].sandbox.asked(cid)) == 1
    assert worker.running


def test_a_record_that_was_planted_is_not_signed_by_those_who_put_back_what_is_lost(
    worker: LocalProcess, queue: redis.Redis
) -> None:
    name, before = str(uuid4()), len(refused(worker))
    long_ago = str(int((time.time() - 60) * MICROSECONDS))
    for field, value in {
        "queued": long_ago,
        "accepted": long_ago,
        "queue": "bridge.metadata",
        "state": "waiting",
        "message": json.dumps(message(name)),
    }.items():
        queue.hset(keys.JOB + name, field, value)
    queue.zadd(keys.OPEN + "bridge.metadata", {name: long_ago})
    queue.sadd(keys.QUEUES, "bridge.metadata")
    assert eventually(lambda: refused(worker)[before:])
    assert eventually(lambda: queue.hget(keys.JOB + name, "state") == b"failed")


def test_a_dead_letter_is_signed_again_when_it_is_replayed(worker: LocalProcess, queue: redis.Redis) -> None:
    del worker
    result = sent("generate_hash", content={"kind": "blob", "key": "a" * 32, "size": 1})
    with pytest.raises(Exception, match="expired"):
        result.get(timeout=PATIENCE)
    name = str(result.id)
    assert eventually(lambda: queue.hget(keys.JOB + name, "state") == b"failed")
    runtime = current()
    assert runtime.run(runtime.ledger.replay(name))
    assert eventually(lambda: queue.hget(keys.JOB + name, "runs") == b"2")
