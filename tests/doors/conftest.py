"""One deployment for all tests of its doors: Redis with TLS and users, a worker, Flower; each is its own user."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from bridge_tasks.sandbox.processes import LocalProcess, ProcessFailed
from tests.doors.secured_redis import SecuredRedis, secured_redis
from tests.workers import PATIENCE, QUICK, orchestrating, sandboxed

KEY, FLOWER = "key-" + uuid4().hex, "flower-" + uuid4().hex
NODE = "secured@" + os.uname().nodename


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("tests.workers")


@dataclass(frozen=True, slots=True)
class Secured:
    """What is running, and what each who takes part is told."""

    redis: SecuredRedis
    worker: LocalProcess
    flower: LocalProcess
    common: dict[str, str] = field(repr=False)

    def environment(self, user: str) -> dict[str, str]:
        """What somebody is told who acts as a user."""
        return self.common | {"BRIDGE_REDIS_URL": self.redis.url(user)}

    def page(self) -> httpx.Client:
        """Flower, for whoever has its password."""
        (address,) = re.findall(r"Visit me at (http://127\.0\.0\.1:\d+)", self.flower.log.read_text())
        return httpx.Client(base_url=address, auth=("bridge", FLOWER), timeout=PATIENCE)


@pytest.fixture(scope="session")
def secured(documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("secured")
    with ExitStack() as stack:
        server = stack.enter_context(secured_redis(directory))
        sandbox = stack.enter_context(sandboxed("service", documents, directory))
        common = QUICK | {
            "BRIDGE_CONTENT__ROOTS": str(documents),
            "BRIDGE_CONTENT__HOSTS": "127.0.0.1",
            "BRIDGE_METADATA__URLS": sandbox.metadata,
            "BRIDGE_ONEXTREE__URLS": sandbox.onextree,
            "BRIDGE_LEDGER__SIGNING_KEYS": KEY,
            "BRIDGE_LEDGER__LOOK_SECONDS": "1",
            "BRIDGE_WORKER__ORDERS": "questions",
            "BRIDGE_LOG__LEVEL": "DEBUG",
        }

        def start(name: str, *arguments: str, **extra: str) -> LocalProcess:
            environment = {**os.environ, **common, "BRIDGE_REDIS_URL": server.url(name), **extra}
            command = [sys.executable, "-P", "-m", "celery", "-A", "bridge_tasks.app", name, *arguments]
            process = LocalProcess(command, directory=directory, name=name, environment=environment)
            return stack.enter_context(process)

        flower = start(
            "flower", "--port=0", BRIDGE_FLOWER__PASSWORD=FLOWER, BRIDGE_FLOWER__STATE=str(directory / "state")
        )
        worker = start("worker", "-P", "threads", "-c", "2", "-n", "secured@%h", BRIDGE_METRICS__PORT="0")
        try:
            worker.wait_ready(lambda: " ready." in worker.log.read_text(), PATIENCE)
            flower.wait_ready(lambda: "Connected to" in flower.log.read_text(), PATIENCE)
        except ProcessFailed as error:  # what was denied says more than where it was noticed
            pytest.fail(f"{error}\ndenied: {server.denied()}")
        yield Secured(server, worker, flower, common)


@pytest.fixture
def producer(secured: Secured) -> Iterator[Secured]:
    """This process as an orchestrator, with the producer's rights."""
    secured.redis.denied()
    with orchestrating(secured.environment("producer")):
        yield secured
