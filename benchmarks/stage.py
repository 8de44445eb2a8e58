"""A Redis, both services and as many workers as are asked for, to see what each of these processes uses.

It measures nothing by itself, and starts nothing twice.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import redis

from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.watched import WatchedRedis

_PATIENCE = 60.0
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stage:
    """What is there.

    Attributes:
        url: of Redis, which keeps an append-only file.
        services: of both.
        directory: for logs and files.
    """

    url: str
    services: tuple[str, str]
    directory: Path
    _stack: ExitStack = field(repr=False)

    def worker(self, name: str, slots: int, pool: str = "prefork") -> LocalProcess:
        """Start a worker, and return it once it consumes."""
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "bridge_tasks.app",
            "worker",
            "-P",
            pool,
            "-c",
            str(slots),
        ]
        process = LocalProcess([*command, "-n", f"{name}@%h", "-l", "INFO"], directory=self.directory, name=name)
        self._stack.callback(process.terminate)
        process.start().wait_ready(lambda: " ready." in process.log.read_text(), _PATIENCE)
        return process

    def delay(self, seconds: float) -> None:
        """Have both services answer later."""
        for url in self.services:
            httpx.delete(f"{url}/_sandbox/faults").raise_for_status()
            if seconds:
                fault = {"kind": "latency", "seconds": seconds}
                httpx.post(f"{url}/_sandbox/faults", json=[fault]).raise_for_status()

    def used(self) -> dict[str, float]:
        """What Redis says of itself."""
        with redis.Redis.from_url(self.url) as client:
            told = client.info()
        return {
            "memory": float(told["used_memory"]),
            "in": float(told["total_net_input_bytes"]),
            "out": float(told["total_net_output_bytes"]),
            "seconds": float(told["used_cpu_user"]) + float(told["used_cpu_sys"]),
        }


@contextmanager
def staged(directory: Path) -> Iterator[Stage]:
    """Start Redis and the services, and have this process's environment name them."""
    with PrivateRedis(append_only=True) as server, staged_on(server, directory) as stage:
        yield stage


@contextmanager
def staged_on(server: PrivateRedis | WatchedRedis, directory: Path) -> Iterator[Stage]:
    """Start the services beside a Redis that is there."""
    with ExitStack() as stack:
        command = [sys.executable, "-m", "bridge_tasks.sandbox", "--metadata-port", "0", "--onextree-port", "0"]
        services = stack.enter_context(LocalProcess(command, directory=directory, name="services"))
        services.wait_ready(lambda: "onextree_url" in services.tail(), _PATIENCE)
        urls = json.loads(services.tail().splitlines()[-1])
        os.environ |= {
            **server.environment,
            "BRIDGE_METADATA__URLS": urls["metadata_url"],
            "BRIDGE_ONEXTREE__URLS": urls["onextree_url"],
            "BRIDGE_CONTENT__ROOTS": str(directory),
            "BRIDGE_LOG__LEVEL": "INFO",
            "BRIDGE_CHECK": "off",
        }
        yield Stage(server.url, (urls["metadata_url"], urls["onextree_url"]), directory, stack)


def family(process: LocalProcess) -> list[int]:
    """The process and its children."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [process.pid, *map(int, children)]


def processor_seconds(process: LocalProcess) -> float:
    """What a worker and its children have used so far."""
    used = 0
    for pid in family(process):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])  # utime, stime; see proc(5)
    return used / _CLOCK_TICKS


def own_megabytes(process: LocalProcess) -> float:
    """Memory of a worker and its children, what they share counted once (PSS)."""
    kilobytes = 0
    for pid in family(process):
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kilobytes += next(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return kilobytes / 1024


def connections(url: str, process: LocalProcess) -> int:
    """How many connections a worker and its children have to Redis."""
    port = f":{urlsplit(url).port:04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[2].endswith(port)}  # local, remote, ..., inode; see proc(5)
    held = {link.readlink().name for pid in family(process) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return len({f"socket:[{inode}]" for inode in inodes} & held)
