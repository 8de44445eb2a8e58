"""A Redis with two replicas and three sentinels, all of them real, for tests of what happens when the master dies.

They listen on this machine only, in a directory of the test's, and end with it.
"""

import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks.places import SCHEME, Place
from bridge_tasks.sandbox.ports import HOST, HeldPort
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import find_server

MASTER = "watched"
DOWN_AFTER_MILLISECONDS = 1000
_PATIENCE = 30.0
_POLL = 0.05

_SERVER = """port {port}
bind {host}
dir {directory}
save ""
appendonly yes
appendfsync {fsync}
maxmemory-policy noeviction
min-replicas-to-write {copies}
repl-diskless-sync-delay 0
{replicaof}
"""
_SENTINEL = """port {port}
bind {host}
dir {directory}
sentinel monitor {master} {host} {watched} 2
sentinel down-after-milliseconds {master} {down_after}
sentinel failover-timeout {master} 6000
sentinel parallel-syncs {master} 2
"""


@dataclass(slots=True)
class WatchedRedis:
    """All six. A context manager; `stop`, `kill` and `start` are a private Redis's, of whoever is master.

    Args:
        directory: for their files; it must exist.
        fsync: how the append-only files are written.
        copies: `min-replicas-to-write`.
    """

    directory: Path
    fsync: str = "everysec"
    copies: int = 1
    servers: dict[int, LocalProcess] = field(default_factory=dict)
    sentinels: dict[int, LocalProcess] = field(default_factory=dict)
    killed: int | None = None
    _fallen: list[LocalProcess] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        try:
            self._launch()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """What BRIDGE_REDIS_URL is for it."""
        return ";".join(f"{SCHEME}{HOST}:{port}/0" for port in self.sentinels)

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.url, MASTER)

    @property
    def environment(self) -> dict[str, str]:
        """The settings that name it."""
        return {"BRIDGE_REDIS_URL": self.url, "BRIDGE_SENTINEL__MASTER": MASTER}

    @property
    def master(self) -> int:
        """The port of whom most sentinels call master."""
        ports = self._told()
        return max(ports, key=ports.count)

    @property
    def agreed(self) -> bool:
        """Whether all sentinels call the same one master: they tell each other every other second."""
        return len(set(self._told())) == 1

    def client(self) -> "redis.Redis":
        """Return a client of whoever is master."""
        return self.place.client(decode_responses=True, socket_timeout=2, socket_connect_timeout=2)

    def kill(self) -> None:
        """End the master with SIGKILL."""
        self.killed = self.master
        self.servers[self.killed].kill()

    def stop(self) -> None:
        """End the master in good order."""
        self.killed = self.master
        self.servers[self.killed].terminate()

    @property
    def promoted(self) -> bool:
        """Whether the sentinels have made another one master, and it takes writes."""
        port = self.master
        return port != self.killed and _asked(port, "ROLE", otherwise=[b""])[0] == b"master"

    @property
    def whole(self) -> bool:
        """Whether both others follow the master."""
        return bool(
            _asked(self.master, "WAIT", 2, 100, otherwise=0) == 2 and _knows_all(next(iter(self.sentinels)))
        )

    def start(self) -> None:
        """Bring back whom the last `kill` or `stop` ended; the sentinels make a replica of it."""
        if self.killed is not None:
            self.servers[self.killed].start()
            self.killed = None

    def fail_over(self) -> None:
        """Have the sentinels make another one master while the old one lives; returns when it is done."""
        before = self.master
        _until(lambda: _asked(next(iter(self.sentinels)), "SENTINEL", "FAILOVER", MASTER) is not None)
        _until(lambda: self.agreed and self.master != before)
        _until(lambda: _asked(self.master, "ROLE", otherwise=[b""])[0] == b"master")

    def pause_replicas(self) -> None:
        """Freeze those that are no master: they have nothing of what is written from now on."""
        for process in self._replicas():
            process.send_signal(signal.SIGSTOP)

    def resume_replicas(self) -> None:
        """Let them go on."""
        for process in self._replicas():
            process.send_signal(signal.SIGCONT)

    def kill_replicas(self) -> None:
        """End those that are no master; from now on it is alone."""
        self._fallen = self._replicas()
        for process in self._fallen:
            process.kill()

    def start_replicas(self) -> None:
        """Bring them back, with what they had."""
        for process in self._fallen:
            process.start()

    def logs(self) -> str:
        """The ends of all logs, for a test that failed."""
        everyone = [*self.servers.values(), *self.sentinels.values()]
        return "\n".join(f"== {one.name}\n{one.tail()[-1500:]}" for one in everyone)

    def _told(self) -> list[int]:
        """Whom each sentinel calls master, in the very words that redis-py asks for."""
        return [int(fields[b"port"]) for port in self.sentinels if (fields := _of_master(port))]

    def _replicas(self) -> list[LocalProcess]:
        master = self.master
        return [process for port, process in self.servers.items() if port != master and process.running]

    def _launch(self) -> None:
        held = [HeldPort() for _ in range(6)]
        for one in held:
            self._stack.callback(one.release)
        first, *others = [one.number for one in held[:3]]
        self._server(first, "")
        _until(lambda: _asked(first, "PING") == b"PONG")
        for port in others:
            self._server(port, f"replicaof {HOST} {first}")
        _until(lambda: _asked(first, "WAIT", 2, 100, otherwise=0) == 2)
        watching = [one.number for one in held[3:]]
        for port in watching:
            self.sentinels[port] = self._process(
                f"sentinel-{port}",
                _SENTINEL.format(
                    port=port,
                    host=HOST,
                    directory=self.directory,
                    master=MASTER,
                    watched=first,
                    down_after=DOWN_AFTER_MILLISECONDS,
                ),
                "--sentinel",
            )
        for port in watching:
            _until(lambda port=port: _knows_all(port))

    def _server(self, port: int, replicaof: str) -> None:
        folder = self.directory / f"redis-{port}"
        folder.mkdir()
        text = _SERVER.format(
            port=port, host=HOST, directory=folder, fsync=self.fsync, copies=self.copies, replicaof=replicaof
        )
        self.servers[port] = self._process(f"redis-{port}", text)

    def _process(self, name: str, configuration: str, *options: str) -> LocalProcess:
        file = self.directory / f"{name}.conf"  # which the program itself writes to, as roles change
        file.write_text(configuration)
        process = LocalProcess(
            [find_server(), str(file), *options],
            directory=self.directory,
            name=name,
            on_parent_death=signal.SIGKILL,
        )
        self._stack.callback(process.kill)
        return process.start()


def _of_master(sentinel: int) -> dict[bytes, bytes]:
    told = _asked(sentinel, "SENTINEL", "MASTER", MASTER, otherwise=[])
    return dict(zip(told[::2], told[1::2], strict=True))


def _knows_all(sentinel: int) -> bool:
    fields = _of_master(sentinel)
    wanted = {b"num-slaves": b"2", b"num-other-sentinels": b"2", b"flags": b"master"}
    return all(fields.get(name) == value for name, value in wanted.items())


def _asked(port: int, *command: Any, otherwise: Any = None) -> Any:
    """Ask one server, in its own words; `otherwise` where it does not answer."""
    once = Retry(NoBackoff(), 0)
    connection: Any = redis.Connection(  # type: ignore[no-untyped-call] # redis-py's own gap
        host=HOST, port=port, socket_timeout=2, socket_connect_timeout=2, retry=once, protocol=2
    )
    try:
        connection.send_command(*command)
        return connection.read_response()
    except (redis.RedisError, OSError):
        return otherwise
    finally:
        connection.disconnect()


def _until(check: Any) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError("the servers are not as they should be")
        time.sleep(_POLL)
