"""The one runtime of a process: opened when asked for, its own after a fork, closed and opened again."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import redis

from bridge_tasks import runtime
from bridge_tasks.errors import ConfigurationError, ServiceUnavailableError
from bridge_tasks.resilience.state.shared_redis import StoreUnavailable
from bridge_tasks.sandbox import metadata_service, onextree_service
from bridge_tasks.sandbox.control import Controls, controls_of
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.sandbox.server import running
from bridge_tasks.settings import Settings, load

APP = metadata_service.create_app("service")


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, str]]:
    with (
        running(APP) as metadata,
        running(onextree_service.create_app("service", Path(__file__).parent)) as onextree,
    ):
        yield {"BRIDGE_METADATA__URLS": metadata, "BRIDGE_ONEXTREE__URLS": onextree}


@pytest.fixture(autouse=True)
def environment(services: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """This process set up for the services, and set back."""
    for name, value in services.items():
        monkeypatch.setenv(name, value)
    runtime.close()
    load.cache_clear()
    yield services
    runtime.close()
    load.cache_clear()


@pytest.fixture
def controls() -> Iterator[Controls]:
    controls = controls_of(APP)
    controls.records.clear()
    yield controls
    controls.faults.clear()


def hashed(data: bytes = b"hello") -> str:
    current = runtime.current()
    return str(current.run(current.metadata.generate_hash(data))["hash"])


def test_there_is_one_runtime_and_it_connects_to_nothing_until_it_is_used(controls: Controls) -> None:
    first = runtime.current()

    assert runtime.current() is first
    assert first.settings is load()
    assert list(controls.records.recent) == []
    assert hashed() == "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"


def test_a_closed_runtime_gives_way_to_a_new_one() -> None:
    before = runtime.current()
    assert hashed()
    runtime.close()
    runtime.close()

    assert runtime.current() is not before
    assert hashed()


async def test_it_works_inside_a_running_event_loop() -> None:
    assert hashed() == hashed()


def test_sixteen_threads_share_one_runtime(controls: Controls) -> None:
    together = Barrier(16)

    def work(number: int) -> tuple[int, str]:
        together.wait()
        return id(runtime.current()), hashed(b"%d" % (number % 4))

    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(work, range(16)))

    assert len({identity for identity, _ in done}) == 1
    assert len({digest for _, digest in done}) == 4
    assert len(controls.records.select(path="/hash")) == 16


def test_a_child_opens_its_own_runtime_and_leaves_its_parent_s_connections_alone(
    services: dict[str, str], controls: Controls
) -> None:
    # In a process of its own: to fork this one, full of servers' threads, would be asking for trouble.
    script = textwrap.dedent(
        """
        import gc, json, os, sys
        from bridge_tasks import runtime

        def hashed():
            current = runtime.current()
            return current.run(current.metadata.generate_hash(b"hello"))["hash"]

        before = hashed()
        parents = id(runtime.current())
        reader, writer = os.pipe()
        if os.fork() == 0:
            gc.collect()
            mine = hashed()
            os.write(writer, json.dumps({"digest": mine, "own": id(runtime.current()) != parents}).encode())
            runtime.close()
            os._exit(0)
        os.wait()
        child = json.loads(os.read(reader, 1000))
        print(json.dumps({"child": child, "parent": [before, hashed()], "same": id(runtime.current()) == parents}))
        """
    )
    child = subprocess.run(
        [sys.executable, "-c", script], env={**services, "PATH": ""}, capture_output=True, text=True, check=True
    )
    digest = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
    assert child.stderr == ""
    assert json.loads(child.stdout) == {
        "child": {"digest": digest, "own": True},
        "parent": [digest, digest],
        "same": True,
    }
    assert [record.status for record in controls.records.select(path="/hash")] == [200, 200, 200]


def test_a_service_that_is_down_is_an_error_and_the_runtime_outlives_it(
    services: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(metadata_service.create_app()) as gone:
        pass
    monkeypatch.setenv("BRIDGE_METADATA__URLS", gone)
    monkeypatch.setenv("BRIDGE_METADATA__RETRY__ATTEMPTS", "1")
    load.cache_clear()
    current = runtime.current()

    with pytest.raises(ServiceUnavailableError):
        hashed()
    assert current.run(current.onextree.health_check())["status"] == "healthy"
    assert services["BRIDGE_METADATA__URLS"] != gone


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRIDGE_REDIS_URL", "http://hunter2@127.0.0.1/"),
        ("BRIDGE_METADATA__URLS", "http://user:hunter2@127.0.0.1/"),
        ("BRIDGE_METADATA__URLS", ""),
        ("BRIDGE_ONEXTREE__TIMEOUT", "hunter2"),
        ("BRIDGE_TASK__RETRY__ATTEMPTS", "0"),
        ("BRIDGE_METADATA__LIMITS__PRESET", "hunter2"),
        ("BRIDGE_METADATA__LIMITS__MAX_CONCURRENT", "-1"),
        ("BRIDGE_METADATA__LIMITS__PER_MINUTE__HASH", "hunter2"),
        ("BRIDGE_ONEXTREE__BUDGET__RATIO", "-0.1"),
        ("BRIDGE_TASK__VISIBILITY_TIMEOUT", "100"),
        ("BRIDGE_CONTENT__ROOTS", "relative/hunter2"),
        ("BRIDGE_LOG__LEVEL", "hunter2"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    load.cache_clear()

    with pytest.raises(ConfigurationError) as wrong:
        runtime.current()
    assert name.startswith(str(wrong.value).partition(":")[0])  # a rule over several names the branch they are on
    assert "hunter2" not in str(wrong.value)


def test_no_representation_of_the_settings_shows_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BRIDGE_REDIS_URL", "BRIDGE_BROKER_URL", "BRIDGE_RESULT_BACKEND_URL"):
        monkeypatch.setenv(name, "redis://:hunter2@127.0.0.1/0")
    settings = Settings()

    assert settings.broker == settings.result_backend == "redis://:hunter2@127.0.0.1/0"
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "hunter2" not in shown


def test_people_wait_for_a_busy_redis_and_tasks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with PrivateRedis() as server, redis.Redis.from_url(server.url) as client:
        monkeypatch.setenv("BRIDGE_REDIS_URL", server.url)
        for patient in (False, True):
            runtime.close()
            load.cache_clear()
            asking = runtime.current(patient=patient)
            client.client_pause(300)
            if patient:
                assert asking.run(asking.shared.command("ECHO", "here")) == b"here"
            else:
                with pytest.raises(StoreUnavailable):
                    asking.run(asking.shared.command("ECHO", "here"))
        runtime.close()
