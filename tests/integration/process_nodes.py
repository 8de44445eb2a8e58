"""Nodes that are processes of this machine, for where no container engine runs.

pytest-celery asks of a node what docker-py's container offers; `_Process` offers it over a process.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pytest_celery import CeleryWorkerContainer, RedisContainer

from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.integration.nodes import COMMAND, SETTINGS, Nodes
from tests.workers import sandboxed


class _Process:
    """A process, in the words of docker-py; signals reach it alone, as they reach a container's first process."""

    def __init__(self, name: str, process: Callable[[], LocalProcess], restart: Callable[[], object]) -> None:
        self.id = self.name = name
        self.attrs: dict[str, Any] = {"NetworkSettings": {"Networks": {}, "Ports": {}}}
        self._process = process
        self._restart = restart

    @property
    def status(self) -> str:
        return "running" if self._process().running else "exited"

    def logs(self) -> bytes:
        return self._process().log.read_bytes()

    def reload(self) -> None:
        """There is nothing that could be stale."""

    def kill(self, signal_name: str | None = None) -> None:
        number = signal.Signals[signal_name or "SIGKILL"]
        if number is signal.SIGKILL:
            self._process().kill()
        else:
            self._process().send_signal(number)

    def restart(self, timeout: float) -> None:
        self._process().terminate(timeout)
        self._restart()


class _LocalRedis(RedisContainer):  # type: ignore[misc] # it has no types
    def __init__(self, server: PrivateRedis) -> None:
        super().__init__(_Process("redis", lambda: _running(server), server.start))
        self._server = server

    @property
    def hostname(self) -> str:
        return "127.0.0.1"

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def host_url(self) -> str:
        return self._server.url


@contextmanager
def process_nodes(directory: Path) -> Iterator[Nodes]:
    """Run the nodes for the length of a `with` block."""
    with ExitStack() as running:
        server = running.enter_context(PrivateRedis(append_only=True))
        sandbox = running.enter_context(sandboxed("service", directory, directory))
        worker = LocalProcess(
            [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", *COMMAND, "--hostname", "worker@%h"],
            directory=directory,
            name="worker",
            environment={
                **os.environ,
                **SETTINGS,
                "BRIDGE_REDIS_URL": server.url,
                "BRIDGE_METADATA__URLS": sandbox.metadata,
                "BRIDGE_ONEXTREE__URLS": sandbox.onextree,
            },
        )
        running.enter_context(worker)
        yield Nodes(
            _LocalRedis(server),
            CeleryWorkerContainer(_Process("worker", lambda: worker, worker.start)),
            sandbox,
        )


def _running(server: PrivateRedis) -> LocalProcess:
    assert server._process is not None
    return server._process
