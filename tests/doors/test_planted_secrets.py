"""Secrets are planted wherever somebody might have some; then everything that anybody may look at is read."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from celery.exceptions import CeleryError

from bridge_tasks.app import app
from bridge_tasks.errors import BridgeError
from bridge_tasks.ledger import keys
from bridge_tasks.sandbox.server import running
from bridge_tasks.settings import load
from bridge_tasks.tasks import generate_hash
from tests.cli.command import run
from tests.content.hosts import Host
from tests.doors.conftest import FLOWER, KEY, NODE, Secured
from tests.doors.secured_redis import ADMIN, NAMES
from tests.tasks.sending import done, inline, sent
from tests.workers import PATIENCE, eventually, orchestrating

CONTENT, TOKEN = (f"{what}-{uuid4().hex}" for what in ("content", "token"))
COMMANDS = (
    ("health",),
    ("check",),
    ("top", "--once"),
    ("top", "--once", "--json"),
    ("metrics",),
    ("metrics", "--targets"),
    ("dead", "list"),
    ("dead", "list", "--json"),
    ("breaker", "list"),
)
PAGES = (
    "/",
    "/workers",
    "/workers?json=1",
    f"/worker/{NODE}",
    "/tasks",
    "/tasks/datatable?draw=1&start=0&length=200&search[value]=&columns[0][data]=name&order[0][column]=0",
    "/broker",
    "/runs",
    "/metrics",
    "/api/workers?refresh=1",
    "/api/tasks?limit=500",
    "/api/task/types",
    "/api/queues/length",
)

Seen = dict[str, str]

pytestmark = pytest.mark.timeout(300)
"""All is read once, in the fixture of the first test: many pages, and a dozen commands."""


@pytest.fixture(scope="module")
def secrets(secured: Secured) -> dict[str, str]:
    """All of them, by what they are."""
    passwords = {f"password of {name}": secured.redis.passwords[name] for name in NAMES}
    told = {"content": CONTENT, "query of a URL": TOKEN, "signing key": KEY, "password of Flower": FLOWER}
    encoded = base64.b64encode(CONTENT.encode()).decode().rstrip("=")
    return told | passwords | {"content in base64": encoded[:-2]}


def errors_of(host: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """What fails, each in its way, with something in it that nobody is to read."""

    def at(url: str) -> dict[str, str]:
        return {"kind": "url", "url": url}

    elsewhere = host.replace("127.0.0.1", "localhost")
    yield "a file that is not there", lambda: done("generate_hash", content=at(f"{host}/status/404?token={TOKEN}"))
    yield "a host that fails", lambda: done("generate_hash", content=at(f"{host}/status/500?token={TOKEN}"))
    yield "a redirect", lambda: done("generate_hash", content=at(f"{host}/moved?token={TOKEN}"))
    yield "nobody there", lambda: done("generate_hash", content=at(f"http://127.0.0.1:1/a?token={TOKEN}"))
    yield "a host not allowed", lambda: done("generate_hash", content=at(f"{elsewhere}/ok?token={TOKEN}"))
    yield "the same, when submitted", lambda: generate_hash.delay(content=at(f"{elsewhere}/ok?token={TOKEN}"))
    login = host.replace("://", f"://somebody:{TOKEN}@")
    yield "a login in a URL", lambda: done("generate_hash", content=at(f"{login}/ok"))
    yield "the same, when submitted", lambda: generate_hash.delay(content=at(f"{login}/ok"))
    yield "no base64", lambda: done("generate_hash", content={"kind": "inline", "data": f"?{CONTENT}"})
    yield "an unknown kind", lambda: done("generate_hash", content={"kind": CONTENT})
    stamp: dict[str, Any] = {"file_path": "/a", "context": "c", "stamp_data": {"note": CONTENT}}
    yield (
        "a file of the system",
        lambda: done("stamp_file", content={"kind": "file", "path": "/etc/shadow"}, **stamp),
    )


@pytest.fixture(scope="module")
def seen(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Everything that was said, by who said it, once all of it has happened."""
    found: Seen = {}
    directory = tmp_path_factory.mktemp("looking")
    with orchestrating(secured.environment("producer")), running(Host()) as host:
        jobs = [
            sent("generate_hash", content=inline(CONTENT)),
            sent("generate_hash", content={"kind": "url", "url": f"{host}/ok?token={TOKEN}"}),
            sent("stamp_file", content=inline(CONTENT), file_path="/a", context="c", stamp_data={"note": CONTENT}),
        ]
        for job in jobs:
            assert job.get(timeout=PATIENCE)
        for number, (name, failing) in enumerate(errors_of(host)):
            with pytest.raises((BridgeError, CeleryError)) as failure:
                failing()
            found[f"error {number}: {name}"] = f"{failure.value!r} {failure.value} {failure.value.__cause__!r}"
        found["what an orchestrator prints"] = repr(load()) + repr(app.connection_for_read()) + repr(jobs)
    found |= {f"page {path}": text for path, text in pages(secured, [str(job.id) for job in jobs])}
    found |= {f"log of {one.name}": one.log.read_text() for one in (secured.worker, secured.flower)}
    found["log of redis"] = secured.redis.process.log.read_text()
    found |= {f"metrics of {name}": text for name, text in metrics(secured)}
    for command in COMMANDS:
        ended = run(*command, cwd=directory, extra=secured.environment("worker"))
        found[f"command {' '.join(command)}"] = ended.out + ended.err
    with secured.redis.client(ADMIN) as client:
        found["names of keys"] = "\n".join(key.decode() for key in client.scan_iter(count=1000))
    found["command lines"] = "\n".join(command_lines())
    return found


def pages(secured: Secured, jobs: list[str]) -> Iterator[tuple[str, str]]:
    """What Flower answers, with its headers; of each job, too, and without a password."""
    with secured.page() as page:
        assert eventually(lambda: set(jobs) <= set(page.get("/api/tasks?limit=500").json())), "it is not shown yet"
        assert eventually(lambda: page.get(f"/worker/{NODE}").status_code == 200)
        tasks = page.get("/api/tasks?limit=500").json()
        assert any(task["state"] == "FAILURE" for task in tasks.values())
        for path in (*PAGES, *(f"{part}/{name}" for name in tasks for part in ("/task", "/api/task/info"))):
            answer = page.get(path)
            assert answer.status_code == 200, path
            yield path, answer.text + str(answer.headers)
        for path in ("/nothing", "/task/nothing", "/api/task/result/" + jobs[0]):
            answer = page.get(path)
            yield path, answer.text + str(answer.headers)
        yield "a stranger's", httpx.get(f"{page.base_url}/tasks").text


def metrics(secured: Secured) -> Iterator[tuple[str, str]]:
    """What each worker tells Prometheus."""
    with secured.redis.client(ADMIN) as client:
        served = [address.decode() for address in client.hvals(keys.METRICS)]
    assert served
    for address in served:
        yield address, httpx.get(f"http://{address}/metrics").raise_for_status().text


def command_lines() -> Iterator[str]:
    """Those of all processes that have not ended meanwhile."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def test_no_secret_is_found_anywhere(seen: Seen, secrets: dict[str, str]) -> None:
    found = [(where, what) for where, text in seen.items() for what, secret in secrets.items() if secret in text]
    assert found == []


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("page /api/tasks?limit=500", "http://127.0.0.1/ok"),
        ("page /runs", "Bulk runs"),
        (f"page /worker/{NODE}", "broker_url"),
        ("log of worker", "job failed"),
        ("log of flower", "Visit me at"),
        ("log of redis", "Ready to accept connections"),
        ("names of keys", "bridge:job:"),
        ("command lines", "celery -A bridge_tasks.app worker"),
        ("command metrics", "bridge_fleet_ledger_up 1"),
        ("command dead list", "generate_hash"),
        ("what an orchestrator prints", "redis_url=SecretStr("),
    ],
)
def test_what_was_read_is_what_somebody_would_look_at(where: str, what: str, seen: Seen) -> None:
    assert what in seen[where]


def test_every_failure_says_what_failed(seen: Seen) -> None:
    errors = {name: text for name, text in seen.items() if name.startswith("error ")}
    assert len(errors) == 11
    assert all(len(text) > 40 for text in errors.values()), json.dumps(errors, indent=1)


@pytest.mark.parametrize("spoilt", ["password", "certificate", "port"])
def test_no_password_is_told_where_redis_cannot_be_reached(spoilt: str, secured: Secured, tmp_path: Path) -> None:
    wrong = "wrong-" + uuid4().hex
    url = secured.redis.url("worker")
    url = {
        "password": url.replace(secured.redis.passwords["worker"], wrong),
        "certificate": url.replace(str(secured.redis.certificate), str(tmp_path / "none.crt")),
        "port": url.replace(f":{secured.redis.port}/", ":1/"),
    }[spoilt]
    for command in (("health",), ("check",), ("stamp", "."), ("top", "--once")):
        ended = run(*command, cwd=tmp_path, extra=secured.environment("worker") | {"BRIDGE_REDIS_URL": url})
        assert ended.status != 0
        said = ended.out + ended.err
        assert said.strip()
        assert not [secret for secret in (wrong, secured.redis.passwords["worker"], KEY) if secret in said], (
            command
        )
    secured.redis.denied()
