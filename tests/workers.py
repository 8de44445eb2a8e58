"""Real workers over real services, started once for all tests that ask: one Celery worker per pool.

A pytest plugin: a conftest imports it. Each pool has a Redis database of its own, so that a job goes where the
test sends it; a sandbox process speaks each dialect. The test process is the orchestrator: `orchestrating` aims
its settings and its application at one database, and puts both back.
"""

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import kombu.pools
import pytest
import redis
from celery import Celery

from bridge_tasks import celeryconfig, runtime
from bridge_tasks.app import app
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.settings import load

T = TypeVar("T")

QUEUES = ("bridge.metadata", "bridge.onextree", "bridge.bulk")
PATIENCE = 60.0
"""Seconds after which a job that still runs is lost, on a machine however busy."""

QUICK = {
    "BRIDGE_TASK__RETRY__ATTEMPTS": "3",
    # Not shorter: a run that ends before the one before it has stored its RETRY would have its result overwritten.
    "BRIDGE_TASK__RETRY__INITIAL": "0.3",
    "BRIDGE_TASK__RETRY__MAXIMUM": "2",
    "BRIDGE_LOG__JSON_LINES": "true",
    # One try per call, and a circuit that stays closed: what is counted here are the runs of tasks.
    "BRIDGE_METADATA__RETRY__ATTEMPTS": "1",
    "BRIDGE_ONEXTREE__RETRY__ATTEMPTS": "1",
    "BRIDGE_METADATA__BREAKER__FAILURE_THRESHOLD": "1000",
    "BRIDGE_ONEXTREE__BREAKER__FAILURE_THRESHOLD": "1000",
    "BRIDGE_METADATA__BREAKER__FAILURE_RATE_THRESHOLD": "1",
    "BRIDGE_ONEXTREE__BREAKER__FAILURE_RATE_THRESHOLD": "1",
}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Both services of one dialect, in a process of their own."""

    metadata: str
    onextree: str
    http: httpx.Client

    def order(self, *faults: Mapping[str, Any]) -> None:
        """Put faults in force on both services; their `path` says whom they meet."""
        for url in (self.metadata, self.onextree):
            self.http.post(f"{url}/_sandbox/faults", json=list(faults)).raise_for_status()

    def asked(self, correlation_id: str | None = None, path: str = "") -> list[dict[str, Any]]:
        """The requests that both services have seen, in order of arrival."""
        wanted = {"path": path} | ({"correlation_id": correlation_id} if correlation_id else {})
        records = [
            record
            for url in (self.metadata, self.onextree)
            for record in self.http.get(f"{url}/_sandbox/requests", params=wanted).json()
        ]
        return sorted(records, key=lambda record: float(record["arrived_at"]))

    def heal(self) -> None:
        """Lift all faults and forget all requests."""
        for url in (self.metadata, self.onextree):
            self.http.delete(f"{url}/_sandbox/faults").raise_for_status()
            self.http.delete(f"{url}/_sandbox/requests").raise_for_status()


@dataclass(frozen=True, slots=True)
class Pool:
    """A worker, its database and its services."""

    name: str
    redis_url: str
    sandbox: Sandbox
    worker: LocalProcess

    def is_ready(self) -> bool:
        return " ready." in self.log()

    def log(self) -> str:
        return self.worker.log.read_text()

    def lines(self, **having: Any) -> list[dict[str, Any]]:
        """The JSON lines of the log in which all of `having` stands."""
        found = json_lines(self.log())
        return [line for line in found if having.items() <= line.items()]

    def children(self) -> list[int]:
        """The process ids of the pool's children."""
        pid = self.worker.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def json_lines(log: str) -> list[dict[str, Any]]:
    """The JSON lines of a log that is being written: the last may be under way."""
    whole = [line for line in log.splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole if line.startswith("{")]


def eventually(check: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Poll until `check` gives something true, and return it; the last answer when the time is over."""
    deadline = time.monotonic() + seconds
    while not (answer := check()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer


@contextmanager
def orchestrating(environment: Mapping[str, str]) -> Iterator[None]:
    """Let this process be an orchestrator with this environment, for the length of a `with` block."""
    before = dict(app.conf)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        load.cache_clear()
        runtime.close()  # one that a test before opened elsewhere
        aim(app)
        load.cache_clear()  # a test may set more of it
        _disconnect()
        try:
            yield
        finally:
            runtime.close()
            app.conf.update({name: before.get(name) for name in _ADDRESSES})
            _disconnect()
    load.cache_clear()


_ADDRESSES = (
    "broker_url",
    "broker_transport",
    "broker_failover_strategy",
    "broker_transport_options",
    "broker_use_ssl",
    "result_backend",
    "result_backend_transport_options",
)
"""What Celery is told of where everything is; the rest does not depend on it."""


def aim(app: Celery) -> None:
    """Tell an application what the environment says now of where everything is."""
    told = vars(importlib.reload(celeryconfig))
    app.conf.update({name: told.get(name) for name in _ADDRESSES})


def _disconnect() -> None:
    """Have Celery close and forget its connections; it offers that only to a process that was just forked."""
    backend = app._backend  # type: ignore[attr-defined] # none of these is in the stubs
    if backend is not None:
        gc.collect()  # results that nobody holds unsubscribe when they go, over the connections below
        backend.result_consumer.stop()
        backend.result_consumer._pubsub = None
        backend.client.connection_pool.disconnect()
    app._backend_cache = None  # type: ignore[attr-defined] # the same
    vars(app._local).pop("backend", None)  # type: ignore[attr-defined] # the same
    kombu.pools.reset()
    app._after_fork()  # type: ignore[attr-defined] # the same


def database(redis_url: str, number: int) -> str:
    """The URL of another database of the same Redis."""
    return urlsplit(redis_url)._replace(path=f"/{number}").geturl()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with PrivateRedis() as server:  # never one that somebody uses: databases are emptied here
        yield server.url


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that jobs may read, and that OnexTree knows."""
    root = tmp_path_factory.mktemp("documents").resolve()
    (root / "auth").mkdir()
    (root / "auth" / "login.py").write_text("def login(user):\n    return user.is_known\n")
    (root / "guide.md").write_text("# Guide\n\nHow to log in.\n")
    return root


@pytest.fixture(scope="session")
def pools(redis_url: str, documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pool]]:
    """A prefork and a solo worker over services of the dialect `service`, a threads worker over the `guide`'s."""
    directory = tmp_path_factory.mktemp("workers")
    with ExitStack() as running:
        sandboxes = {
            dialect: running.enter_context(sandboxed(dialect, documents, directory))
            for dialect in ("service", "guide")
        }
        pools = {}
        for number, (name, dialect, own) in enumerate(
            (
                ("prefork", "service", {}),
                ("threads", "guide", {"BRIDGE_TASK__DEADLINE": "1"}),
                ("solo", "service", {"BRIDGE_LOG__JSON_LINES": "false"}),
            ),
            start=1,
        ):
            url = database(redis_url, number)
            flush(url)
            environment = _environment(url, documents) | QUICK | _services(sandboxes[dialect]) | own
            worker = running.enter_context(_worker(name, directory, environment))
            pools[name] = Pool(name, url, sandboxes[dialect], worker)
        for pool in pools.values():
            pool.worker.wait_ready(pool.is_ready, PATIENCE)
        yield pools


@pytest.fixture
def prefork(pools: dict[str, Pool], documents: Path) -> Iterator[Pool]:
    yield from _orchestrated(pools["prefork"], documents)


@pytest.fixture
def threads(pools: dict[str, Pool], documents: Path) -> Iterator[Pool]:
    yield from _orchestrated(pools["threads"], documents)


@pytest.fixture
def solo(pools: dict[str, Pool], documents: Path) -> Iterator[Pool]:
    yield from _orchestrated(pools["solo"], documents)


@pytest.fixture(params=["prefork", "threads", "solo"])
def pool(request: pytest.FixtureRequest, pools: dict[str, Pool], documents: Path) -> Iterator[Pool]:
    yield from _orchestrated(pools[request.param], documents)


@pytest.fixture
def idle(redis_url: str, documents: Path) -> Iterator[redis.Redis]:
    """A database that no worker looks at, with this process aimed at it."""
    url = database(redis_url, 9)
    flush(url)
    with orchestrating(_environment(url, documents)), redis.Redis.from_url(url) as client:
        yield client


def _orchestrated(pool: Pool, documents: Path) -> Iterator[Pool]:
    pool.sandbox.heal()
    forget_jobs(pool.redis_url)
    with orchestrating(_environment(pool.redis_url, documents)):
        yield pool
    pool.sandbox.heal()


def forget_jobs(redis_url: str) -> None:
    """Let no job of an earlier test stand for one of the next."""
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter("bridge:key:*"):
            client.delete(key)


def _environment(redis_url: str, documents: Path) -> dict[str, str]:
    return {
        "BRIDGE_REDIS_URL": redis_url,
        "BRIDGE_CONTENT__ROOTS": str(documents),
        "BRIDGE_CONTENT__HOSTS": "127.0.0.1",
    }


def _services(sandbox: Sandbox) -> dict[str, str]:
    return {"BRIDGE_METADATA__URLS": sandbox.metadata, "BRIDGE_ONEXTREE__URLS": sandbox.onextree}


def flush(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()


def memory(pid: int, row: str) -> int:
    """A row of a process's status, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith(f"{row}:")]
    return int(kilobytes) * 1024


def _worker(name: str, directory: Path, environment: Mapping[str, str]) -> LocalProcess:
    command = [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker"]
    return LocalProcess(
        [*command, "-P", name, "-c", "2", "-n", f"{name}@%h", "-l", "INFO"],
        directory=directory,
        name=name,
        environment={**os.environ, **environment},
    )


@contextmanager
def sandboxed(dialect: str, documents: Path, directory: Path) -> Iterator[Sandbox]:
    command = [sys.executable, "-m", "bridge_tasks.sandbox", "--dialect", dialect, "--tree", str(documents)]
    process = LocalProcess(
        [*command, "--metadata-port", "0", "--onextree-port", "0"], directory=directory, name=f"{dialect}-services"
    )
    with process, httpx.Client() as http:
        process.wait_ready(lambda: "onextree_url" in process.tail(), PATIENCE)
        urls = json.loads(process.tail().splitlines()[-1])
        yield Sandbox(urls["metadata_url"], urls["onextree_url"], http)
