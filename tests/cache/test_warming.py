"""Asking ahead of time: the list, who works it off, and what an outage does to that."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.signals import worker_ready

from bridge_tasks import runtime
from bridge_tasks.cache import Question, RedisCache, cache_key
from bridge_tasks.errors import ConfigurationError
from bridge_tasks.resilience.policy.caching import CacheRules
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.sandbox.faults import Status
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.settings import load
from bridge_tasks.tasks import warm_cache
from bridge_tasks.worker import signals
from bridge_tasks.worker.warming import read_list, warm_list
from tests.cache.questions import look
from tests.running_service import RunningService
from tests.workers import PATIENCE, eventually


@pytest.fixture
def service(onextree_services: dict[Any, RunningService]) -> Iterator[RunningService]:
    service = onextree_services["service"]
    service.reset()
    yield service
    service.reset()


@pytest.fixture
def worker(
    service: RunningService, cache_server: PrivateRedis, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[runtime.Runtime]:
    """This process as a worker."""
    del store  # emptied
    monkeypatch.setenv("BRIDGE_REDIS_URL", cache_server.url)
    monkeypatch.setenv("BRIDGE_ONEXTREE__URLS", service.url)
    monkeypatch.setenv("BRIDGE_ONEXTREE__RETRY__ATTEMPTS", "1")
    runtime.close()
    load.cache_clear()
    yield runtime.current()
    runtime.close()
    load.cache_clear()


def asked(service: RunningService) -> int:
    return len(service.asked("/intelligence"))


def test_what_was_warmed_is_known_to_every_caller(worker: runtime.Runtime, service: RunningService) -> None:
    assert warm_cache(contexts=["auth", "api", "auth "]) == {"known": 3, "failed": 0}
    assert asked(service) == 3
    assert warm_cache(contexts=["auth", "api"]) == {"known": 2, "failed": 0}
    worker.run(worker.onextree.get_intelligence("auth"))
    assert asked(service) == 3


def test_a_list_that_somebody_works_off_is_left_to_them(
    worker: runtime.Runtime, service: RunningService, shared: SharedRedis
) -> None:
    contexts = ["auth", "api"]
    other = RedisCache(shared, "onextree", rules=CacheRules())
    assert look(other, Question(cache_key("warm", {"contexts": sorted(contexts)}))).lease
    assert warm_cache(contexts=contexts) == {"known": 0, "failed": 0}
    assert asked(service) == 0
    assert worker.run(worker.onextree.fleet_cache_stats()).size == 0


def test_an_outage_ends_the_warming_at_once(worker: runtime.Runtime, service: RunningService) -> None:
    del worker
    service.inject(Status(code=503))
    assert warm_cache(contexts=["auth", "api", "test"]) == {"known": 0, "failed": 3}
    assert asked(service) == 1
    service.reset()
    assert warm_cache(contexts=["auth", "api", "test"]) == {"known": 3, "failed": 0}


def test_a_refused_context_does_not_end_it(worker: runtime.Runtime, service: RunningService) -> None:
    del worker
    service.inject(Status(code=422, count=1))
    assert warm_cache(contexts=["auth", "api"]) == {"known": 1, "failed": 1}


def test_workers_ask_what_is_listed_when_they_start_and_each_thing_once(
    service: RunningService, cache_server: PrivateRedis, store: redis.Redis, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "BRIDGE_REDIS_URL": cache_server.url,
        "BRIDGE_ONEXTREE__URLS": service.url,
        "BRIDGE_ONEXTREE__WARM": "auth,api,test",
    }
    command = [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "-P", "solo", "-l", "INFO"]
    with ExitStack() as running:
        for name in ("one", "two"):
            process = LocalProcess(
                [*command, "-n", f"{name}@%h"], directory=tmp_path, name=name, environment=environment
            )
            worker = running.enter_context(process)
            worker.wait_ready(lambda worker=worker: " ready." in worker.log.read_text(), PATIENCE)  # type: ignore[misc] # a default argument binds the worker
        eventually(lambda: asked(service) == 3 and not store.exists("bridge.onextree", "unacked"))
    assert asked(service) == 3
    assert store.hlen("bridge:v1:cache:{onextree.1}") == 3


@pytest.mark.parametrize("setting", ["/nowhere/at/all", "x" * 1_000_000])
def test_a_worker_starts_in_spite_of_a_list_that_cannot_be_used(
    setting: str, worker: runtime.Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    del worker
    monkeypatch.setattr(signals, "warm_list", lambda _: warm_list(setting))
    worker_ready.send(sender=None)
    assert "the cache is not warmed" in caplog.text
    assert "Traceback" not in caplog.text


def test_contexts_come_from_the_setting_or_from_a_file(tmp_path: Path) -> None:
    assert warm_list("") == []
    assert warm_list(" auth, api design,,auth ") == ["auth", "api design"]
    file = tmp_path / "contexts"
    file.write_text("# often\nauth, login\n\n  api design  \nauth, login\n")
    assert warm_list(str(file)) == read_list(file, "--file") == ["auth, login", "api design"]


@pytest.mark.parametrize("setting", ["/nowhere/at/all", ",".join(map(str, range(1001)))])
def test_a_list_that_cannot_be_used_is_named(setting: str) -> None:
    with pytest.raises(ConfigurationError, match="BRIDGE_ONEXTREE__WARM"):
        warm_list(setting)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("stale_if_error", -1),
        ("near_ttl", 86_401),
        ("lease", 0),
        ("lease", 301),
        ("early_refresh", 101),
        ("near_entries", -1),
        ("max_bytes", 0),
        ("version", "}"),
        ("version", ""),
    ],
)
def test_rules_that_make_no_sense_are_refused(field: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=field):
        replace(CacheRules(), **{field: wrong})
