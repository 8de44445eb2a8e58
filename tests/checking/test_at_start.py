"""What a worker does about it when it starts, and what the command prints and how it exits."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge_tasks.app import app
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.settings import Settings
from bridge_tasks.worker.start_check import EX_CONFIG, look_over
from tests.cli.command import NO_REDIS, run

PICKLE = """
from bridge_tasks.celeryconfig import *
accept_content = ["json", "pickle"]
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with PrivateRedis(append_only=True) as server:
        yield server.url


@pytest.fixture
def variables(url: str, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "with_pickle.py").write_text(PICKLE)
    return {"BRIDGE_REDIS_URL": url, "BRIDGE_CONTENT__ROOTS": str(tmp_path)}


def test_the_command_passes_a_good_deployment_clean(variables: dict[str, str], tmp_path: Path) -> None:
    done = run("check", "--strict", cwd=tmp_path, extra=variables | {"BRIDGE_CHECK_ACCEPT": "root-user"})
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("Nothing is wrong")


def test_the_command_tells_what_why_and_the_fix_at_80_columns(variables: dict[str, str], tmp_path: Path) -> None:
    extra = variables | {"BRIDGE_CONTENT__ROOTS": "/", "FLOWER_ADDRESS": "10.0.0.1", "COLUMNS": "80"}
    done = run("check", cwd=tmp_path, extra=extra)
    assert done.status == 1
    assert "FATAL root-system\n" in done.out
    assert "  Fix: export BRIDGE_CONTENT__ROOTS=/srv/documents\n" in done.out
    assert all(len(line) <= 80 or line.startswith("  Fix: ") for line in done.out.splitlines())
    assert "BRIDGE_CHECK=warn" in done.err


def test_no_worker_starts_that_would_read_pickle(variables: dict[str, str], tmp_path: Path) -> None:
    extra = variables | {"CELERY_CONFIG_MODULE": "with_pickle", "BRIDGE_CHECK_ACCEPT": "root-user"}
    told = run("check", "--json", cwd=tmp_path, extra=extra)
    assert (told.status, told.json["well"], told.json["findings"][0]["id"]) == (1, False, "pickle")

    as_anybody = {"C_FORCE_ROOT": "1"}  # Celery refuses pickle by itself, but only to root
    refused = run("worker", "--pool", "solo", cwd=tmp_path, extra=extra | as_anybody)

    assert refused.status == EX_CONFIG
    (line,) = [line for line in refused.err.splitlines() if line.startswith("bridge-tasks: no worker starts")]
    assert 'Fix: accept_content = result_accept_content = ["json"]' in line
    assert "Traceback" not in refused.err


@pytest.mark.parametrize(("mode", "level"), [("warn", "ERROR"), ("off", None)])
def test_an_operator_may_go_on(
    mode: str, level: str | None, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BRIDGE_CHECK", mode)
    monkeypatch.setenv("BRIDGE_REDIS_URL", url)
    with caplog.at_level(logging.WARNING):
        look_over(Settings(), {**app.conf, "broker_url": url, "task_always_eager": True})
    assert [one.levelname for one in caplog.records if "eager" in one.message] == ([level] if level else [])


def test_a_worker_starts_and_waits_where_redis_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BRIDGE_REDIS_URL", NO_REDIS)
    look_over(Settings(), {**app.conf, "broker_url": NO_REDIS})
    assert not caplog.records


def test_a_fault_in_looking_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        look_over(Settings(), {})
    assert "was not checked" in caplog.text
