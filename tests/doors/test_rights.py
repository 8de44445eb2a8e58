"""Redis with TLS and a user for each part: each does its whole job, none may do more, nobody else gets in."""

import re
import signal
from pathlib import Path

import pytest
import redis
from celery import chord

from bridge_tasks import workflows
from bridge_tasks.async_bridge import AsyncBridge
from bridge_tasks.bridge import Bridge
from bridge_tasks.models.content import InlineContent
from bridge_tasks.runtime import current
from bridge_tasks.tasks import generate_hash
from tests.cli.command import run
from tests.doors.conftest import NODE, Secured
from tests.doors.secured_redis import ADMIN, NAMES, USERS, certificate, once
from tests.tasks.sending import inline
from tests.workers import PATIENCE, eventually

LOOKED = "bridge:looked"


def stored(secured: Secured, pattern: str) -> bool:
    with secured.redis.client(ADMIN) as client:
        return bool(next(client.scan_iter(pattern, count=1000), None))


def test_a_producer_submits_waits_cancels_and_asks_and_a_worker_does_it_all(
    producer: Secured, documents: Path
) -> None:
    bridge = Bridge()
    stamped = bridge.submit(workflows.stamp_file(documents / "guide.md", context="secured"))
    assert stamped.result(timeout=PATIENCE)["stamp_id"]
    done = bridge.submit(workflows.stamp_files([documents / "auth" / "login.py"], context="secured"))
    assert done.wait(timeout=PATIENCE).succeeded == 1
    header = [generate_hash.s(content=inline(text)) for text in "ab"]
    body = workflows.stamp_file_job(documents / "guide.md", context="a chord's end")
    whole = bridge.submit(chord(header, body))
    assert whole.result(timeout=PATIENCE)
    assert generate_hash.delay(content=InlineContent.of(b"plain")).get(timeout=PATIENCE)["hash"]
    blob = current().run(current().content.put(b"kept in Redis"))
    assert generate_hash.delay(content=blob).get(timeout=PATIENCE)["file_size_bytes"] == 13
    later = workflows.stamp_file_job(documents / "guide.md", context="later").set(countdown=600)
    assert bridge.submit(later, force=True).cancel()
    assert bridge.find(correlation_id=stamped.correlation_id) == [stamped]
    assert bridge.find(file=documents / "guide.md")
    health = bridge.health()
    assert (health.workers, health.redis) == ((NODE,), True)
    assert set(health.circuits) == {"metadata", "onextree"}
    assert producer.redis.denied() == []


def test_a_producer_cancels_a_run_and_reads_what_became_of_each_file(producer: Secured, documents: Path) -> None:
    folder = documents / "many"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{number}.md" for number in range(300)]
    for file in files:
        file.write_text(f"{file.name}\n")
    producer.worker.send_signal(signal.SIGSTOP)  # else it might be done before it is told
    try:
        many = Bridge().submit(workflows.stamp_files(files, context="secured", chunk_files=10))
        assert many.cancel()
    finally:
        producer.worker.send_signal(signal.SIGCONT)
    ended = many.wait(timeout=PATIENCE)
    assert ended.succeeded + ended.cancelled == len(files)
    assert ended.cancelled
    assert len(list(many.outcomes())) == len(files)
    assert producer.redis.denied() == []


async def test_a_producer_in_asyncio_waits_as_well(producer: Secured, documents: Path) -> None:
    async with AsyncBridge() as bridge:
        job = await bridge.submit(workflows.stamp_file_job(documents / "guide.md", context="async"), force=True)
        assert await job.result(timeout=PATIENCE)
    assert producer.redis.denied() == []


def test_a_worker_keeps_circuits_answers_and_records_and_looks_for_what_is_lost(
    producer: Secured, documents: Path
) -> None:
    job = Bridge().submit(workflows.stamp_file(documents / "guide.md", context="kept"), force=True)
    assert job.result(timeout=PATIENCE)
    for pattern in ("bridge:v1:circuit:*", "bridge:v1:cache:*", f"bridge:job:{job.id}"):
        assert eventually(lambda pattern=pattern: stored(producer, pattern)), pattern  # type: ignore[misc]
    with producer.redis.client(ADMIN) as client:
        client.delete(LOOKED)
        assert eventually(lambda: client.exists(LOOKED)), "nobody looks, and so nothing lost would be found"
    assert producer.redis.denied() == []


def test_flower_shows_jobs_workers_queues_and_runs(producer: Secured, documents: Path) -> None:
    job = Bridge().submit(workflows.stamp_file(documents / "guide.md", context="shown"), force=True)
    assert job.result(timeout=PATIENCE)
    bulk = Bridge().submit(workflows.stamp_files([documents / "guide.md"], context="shown"), force=True)
    assert bulk.wait(timeout=PATIENCE).succeeded == 1
    with producer.page() as page:
        assert eventually(lambda: job.id in page.get("/api/tasks").json())
        assert eventually(lambda: {"bridge.metadata"} <= readers(page.get("/api/queues/length").json()))
        assert page.get("/api/workers?refresh=1").json()[NODE]["stats"]
        assert bulk.id in page.get("/runs").text
        assert page.get(f"/worker/{NODE}").status_code == 200
    assert producer.redis.denied() == []


def readers(lengths: dict[str, list[dict[str, object]]]) -> set[object]:
    """The queues that somebody reads."""
    return {queue["name"] for queue in lengths["active_queues"] if queue["consumers"] == 1}


@pytest.mark.parametrize(
    "command",
    [
        ("health",),
        ("check", "--json"),
        ("top", "--once"),
        ("metrics",),
        ("dead", "list"),
        ("breaker", "list"),
        ("cache", "stats"),
    ],
)
def test_an_operators_commands_work_with_the_rights_of_a_worker(
    command: tuple[str, ...], secured: Secured, tmp_path: Path
) -> None:
    secured.redis.denied()
    ended = run(*command, cwd=tmp_path, extra=secured.environment("worker"))
    assert ended.status == 0, ended.err
    assert [one for one in secured.redis.denied() if one["object"] != "config|get"] == []


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("worker", ("FLUSHALL",)),
        ("worker", ("FLUSHDB",)),
        ("worker", ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")),
        ("worker", ("CONFIG", "GET", "*")),
        ("worker", ("DEBUG", "SLEEP", "0")),
        ("worker", ("SCRIPT", "KILL")),
        ("worker", ("SCRIPT", "FLUSH")),
        ("worker", ("FUNCTION", "KILL")),
        ("worker", ("KEYS", "*")),
        ("worker", ("MONITOR",)),
        ("worker", ("SHUTDOWN",)),
        ("worker", ("ACL", "LIST")),
        ("worker", ("GET", "of somebody else")),
        ("producer", ("FLUSHALL",)),
        ("producer", ("CONFIG", "GET", "*")),
        ("producer", ("KEYS", "*")),
        ("producer", ("SCAN", "0")),
        ("producer", ("SHUTDOWN",)),
        ("producer", ("RPOP", "bridge.metadata")),
        ("producer", ("BRPOP", "bridge.metadata", "0.01")),
        ("producer", ("LMOVE", "bridge.metadata", "bridge.bulk", "LEFT", "LEFT")),
        ("producer", ("LRANGE", "bridge.metadata", "0", "-1")),
        ("producer", ("DEL", "bridge.metadata")),
        ("producer", ("EXPIRE", "bridge.metadata", "0")),
        ("producer", ("SET", "bridge.metadata", "gone")),
        ("producer", ("EVAL", "return redis.call('RPOP', KEYS[1])", 1, "bridge.metadata")),
        ("producer", ("DEL", "bridge:worker:x")),
        ("producer", ("SET", "bridge:worker:x", "1")),
        ("producer", ("SADD", "bridge:workers", "x")),
        ("producer", ("HGETALL", "bridge:unacked:x")),
        ("producer", ("SET", "celery-task-meta-x", "forged")),
        ("producer", ("PUBLISH", "/0.celery.pidbox", "shutdown")),
        ("flower", ("FLUSHALL",)),
        ("flower", ("LPUSH", "bridge.metadata", "forged")),
        ("flower", ("RPOP", "bridge.metadata")),
        ("flower", ("BRPOP", "bridge.metadata", "0.01")),
        ("flower", ("DEL", "bridge.metadata")),
        ("flower", ("HSET", "bridge:job:x", "state", "succeeded")),
        ("flower", ("SADD", "_kombu.binding.bridge.metadata", "x")),
        ("flower", ("GET", "bridge:blob:x")),
        ("flower", ("GET", "celery-task-meta-x")),
        ("flower", ("PUBLISH", "bridge:v1:circuits", "x")),
        ("flower", ("PUBLISH", "/0.celeryev/task.succeeded", "forged")),
        ("flower", ("EVAL", "return redis.call('LPUSH', ARGV[1], 'x')", 0, "bridge.metadata")),
        ("flower", ("CONFIG", "GET", "*")),
    ],
    ids=str,
)
def test_nobody_may_do_more_than_is_needed(secured: Secured, user: str, command: tuple[str, ...]) -> None:
    with (
        secured.redis.client(user) as client,
        pytest.raises(redis.ResponseError, match=r"(?i)no permissions|can't run this command"),
    ):
        client.execute_command(*command)
    assert {one["username"] for one in secured.redis.denied()} == {user}


def test_nobody_is_let_in_without_tls_or_a_password(secured: Secured) -> None:
    with (
        redis.Redis(host="127.0.0.1", port=secured.redis.port, socket_timeout=5, retry=once()) as plain,
        pytest.raises(redis.ConnectionError),
    ):
        plain.ping()
    nobody = f"rediss://127.0.0.1:{secured.redis.port}/0?ssl_ca_certs={secured.redis.certificate}"
    with redis.Redis.from_url(nobody, retry=once()) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_an_impostor_is_told_no_password(secured: Secured, tmp_path: Path) -> None:
    other, _ = certificate(tmp_path, "other")
    impostor = secured.redis.url("worker").replace(str(secured.redis.certificate), str(other))
    with (
        redis.Redis.from_url(impostor, retry=once()) as client,
        pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.ping()


def test_the_file_that_is_given_away_has_no_password_and_lets_nobody_else_in() -> None:
    told = dict(re.findall(r"^user (\w+) (.*)$", USERS.read_text(), re.MULTILINE))
    assert set(told) == {"default", *NAMES}
    assert told["default"].startswith("off ")
    for name in NAMES:
        assert re.findall(r">(\S+)", told[name]) == [f"{name.upper()}-PASSWORD"]
        assert "nopass" not in told[name]
        assert "+@all" not in told[name]
