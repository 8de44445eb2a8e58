"""Flower, as `bridge-tasks up` starts it: shut to strangers, and a place to find one's jobs in."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import flower.urls
import httpx
import pytest

from tests.cli.command import Up, environment, eventually


def path_of(handler: Any) -> str:
    """A path that a handler of Flower's answers."""
    pattern = handler[0] if isinstance(handler, tuple) else handler.matcher.regex.pattern
    return re.sub(r"\(.+?\)", "x", str(pattern).rstrip("$?")).replace(".*", "/no/such/page")


ROUTES = sorted(map(path_of, flower.urls.handlers))


def orchestrate(up: Up, code: str) -> str:
    """Run a program as somebody's orchestrator would run, in the directory of the stack; what it said."""
    done = subprocess.run(
        [sys.executable, "-"],
        input=code,
        cwd=up.directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def page(up: Up) -> Iterator[httpx.Client]:
    told = up.addresses["flower"]
    with httpx.Client(base_url=told["url"], auth=(told["user"], told["password"]), timeout=20) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("route", [*ROUTES, "/runs", "/static/css/flower.css", "//metrics", "/%2e%2e/metrics"])
def test_nothing_is_shown_without_the_password(up: Up, route: str, method: str) -> None:
    url = f"{up.addresses['flower']['url']}{route}"
    assert httpx.request(method, url).status_code == 401
    wrong = httpx.request(method, url, auth=(up.addresses["flower"]["user"], "wrong"))
    assert (wrong.status_code, wrong.headers["www-authenticate"].split()[0]) == (401, "Basic")


def test_it_only_shows_and_changes_nothing(page: httpx.Client) -> None:
    assert page.post("/api/task/async-apply/bridge.check_health", json={"args": []}).status_code in (401, 403)
    assert page.post("/api/worker/shutdown/any").status_code in (401, 403)


def test_the_tasks_of_a_chain_are_found_by_their_correlation_id_and_no_others(up: Up, page: httpx.Client) -> None:
    (up.directory / "found.md").write_text("found\n")
    (up.directory / "other.md").write_text("other\n")
    code = """
import sys
from bridge_tasks import Bridge, workflows
bridge = Bridge()
jobs = [bridge.submit(workflows.stamp_file(name, context="c", correlation_id=cid, namespace=space))
        for name, cid, space in (("found.md", "find-me", "docs.a"), ("other.md", "find-me-not", "docs.b"))]
for job in jobs:
    job.result(30)
"""
    orchestrate(up, code)

    def found(query: str) -> list[str]:
        table: dict[str, Any] = {"draw": 1, "start": 0, "length": 50, "search[value]": query}
        order = {"columns[0][data]": "name", "order[0][column]": 0, "order[0][dir]": "asc"}
        answer = page.get("/tasks/datatable", params=table | order)
        return sorted(task["name"] for task in answer.json()["data"])

    chain = ["bridge.create_stamp", "bridge.generate_hash", "bridge.get_intelligence"]
    assert eventually(lambda: found("kwargs:cid=find-me") == chain), found("kwargs:cid=find-me")
    assert "bridge.create_stamp" in found("kwargs:namespace=docs.a")


def test_runs_and_queues_have_a_page(up: Up, page: httpx.Client) -> None:
    (up.directory / "shown.md").write_text("shown\n")
    assert up.run("stamp", "shown.md", "--correlation-id", "shown-run").status == 0
    assert "shown-run" in page.get("/runs").text
    broker = page.get("/broker").text
    assert all(queue in broker for queue in ("bridge.metadata", "bridge.onextree", "bridge.bulk"))


def test_the_password_that_was_made_up_is_on_no_page_and_on_no_command_line(up: Up, page: httpx.Client) -> None:
    routes = ("/", "/tasks", "/broker", "/runs", "/workers", "/metrics", "/api/tasks", "/api/workers")
    pages = [page.get(route) for route in routes]
    assert [one.status_code for one in pages] == [200] * len(pages)
    password = up.addresses["flower"]["password"]
    assert password not in "".join(one.text for one in pages)
    lines = list(command_lines())
    assert any(b"bridge_tasks.app\0flower" in line for line in lines)
    assert not [line for line in lines if password.encode() in line and b"chromium" not in line.split(b"\0")[0]]


def command_lines() -> Iterator[bytes]:
    """Those of all processes that have not ended meanwhile."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes()


@pytest.mark.parametrize("given", ["", ":", "bridge:", ":secret-secret"])
def test_half_a_pair_of_credentials_keeps_flower_from_starting(up: Up, given: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "flower", "--port=0"],
        cwd=up.directory,
        env=environment({"FLOWER_BASIC_AUTH": given}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "Flower needs a password" in done.stderr


def test_no_credentials_are_never_right_ones(up: Up) -> None:
    code = """
import bridge_tasks.dashboard.guard as guard
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine
guard.options.basic_auth = [""]
for header in ({}, {"Authorization": "Basic "}, {"Authorization": "Bearer Og=="}):
    line = RequestStartLine("GET", "/tasks", "HTTP/1.1")
    headers = HTTPHeaders({"Host": "here", **header})
    print(guard.admits(HTTPServerRequest(start_line=line, headers=headers)))
"""
    assert orchestrate(up, code).split() == ["False"] * 3
