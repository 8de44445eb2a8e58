"""A RabbitMQ of our own: a node on ports of 127.0.0.1, with its own epmd, in a temporary directory, gone at exit.

Never touches a RabbitMQ that it did not start. What is durable survives `kill` and `start`. It runs no plugins.
"""

import os
import shutil
import signal
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from bridge_tasks.sandbox.ports import HOST, HeldPort
from bridge_tasks.sandbox.processes import LocalProcess
from tests.needed import lacking

PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Debian's; the one in the path would run as another user."""

_PATIENCE = 60.0
_GREETING = b"AMQP\x00\x00\x09\x01"


def require_rabbit() -> None:
    """Go on only where one can be run."""
    if not Path(PROGRAM).exists() or shutil.which("epmd") is None:
        lacking("no rabbitmq-server: .ci/servers installs it")


class PrivateRabbit:
    """A node. A context manager; the methods between are for tests of what happens without it.

    Args:
        user: whom it knows; `guest` may come from this machine only. The password is the same.
    """

    def __init__(self, user: str = "guest") -> None:
        self._user = user
        self._stack = ExitStack()
        self._process: LocalProcess | None = None

    def __enter__(self) -> Self:
        directory = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="rabbit-", ignore_cleanup_errors=True))
        )
        ports = [HeldPort() for _ in range(3)]
        for held in ports:
            self._stack.callback(held.release)
        self.port, between, mapper = (held.number for held in ports)
        (directory / "plugins").write_text("[].\n")
        (directory / "rabbit.conf").write_text(
            f"listeners.tcp.1 = {HOST}:{self.port}\n"
            f"default_user = {self._user}\ndefault_pass = {self._user}\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
            "disk_free_limit.absolute = 50MB\n"
        )
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_NODENAME": f"bridge{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(between),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "logs"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbit.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RUNNING_UNDER_SYSTEMD": "1",  # so that the script becomes the node, which dies with us
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }
        # As a child of ours: the one that Erlang would start outlives everybody.
        self._stack.enter_context(
            LocalProcess(
                [str(shutil.which("epmd")), "-port", str(mapper), "-address", HOST],
                directory=directory,
                name="epmd",
                on_parent_death=signal.SIGKILL,
            )
        )
        self._process = LocalProcess(
            [PROGRAM],
            directory=directory,
            name="rabbitmq",
            environment=environment,
            on_parent_death=signal.SIGKILL,
        )
        self._stack.callback(self.kill)
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """Where it is, for Celery."""
        return f"amqp://{self._user}:{self._user}@{HOST}:{self.port}//"

    def start(self) -> Self:
        """Start it, and wait until it talks; what it kept is there again."""
        process = self._running
        process.start()
        process.wait_ready(self.answers, _PATIENCE)
        return self

    def begin(self) -> None:
        """Start it without waiting; `answers` tells."""
        self._running.start()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would; may be repeated."""
        self._running.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        os.killpg(self._running.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.killpg(self._running.pid, signal.SIGCONT)

    def answers(self) -> bool:
        """Whether it talks to clients; a node that is booting does not."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as tried:
                tried.sendall(_GREETING)
                return bool(tried.recv(1))
        except OSError:
            return False

    def tail(self) -> str:
        """The end of its log."""
        return self._running.tail()

    @property
    def _running(self) -> LocalProcess:
        if self._process is None:
            raise RuntimeError("this RabbitMQ has not been started")
        return self._process
