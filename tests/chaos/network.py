"""Hosts on one machine: a network namespace for each, with a name and an address of its own, and a cable to cut.

This process must be in a network namespace that is nobody else's (`unshare --net`): it is the centre, to which
each host has its cable. All of it goes with the processes that hold it. Root is needed, and iproute2.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge_tasks.sandbox.processes import LocalProcess

CENTRE = "10.213.0.1"
"""Where everybody finds what runs in the centre, over whichever cable."""


@dataclass(frozen=True, slots=True)
class Host:
    """One of them.

    Attributes:
        name: its own, which `%h` in a worker's name stands for.
        cable: the centre's end.
        holder: the process that keeps it there.
    """

    name: str
    cable: str
    holder: LocalProcess

    def process(
        self, command: Sequence[str], *, name: str, directory: Path, environment: Mapping[str, str]
    ) -> LocalProcess:
        """Return a process on this host, not started."""
        return LocalProcess(
            [*_into(self.holder), *command], directory=directory, name=name, environment=environment
        )

    def cut_off(self) -> None:
        """Pull its cable: nothing gets through, and nobody is told."""
        _run("ip", "link", "set", self.cable, "down")

    def reconnect(self) -> None:
        """Put it back."""
        _run("ip", "link", "set", self.cable, "up")


@contextmanager
def network(names: Sequence[str], directory: Path) -> Iterator[list[Host]]:
    """Set up the centre and its hosts."""
    found = [row.split(":")[0].strip() for row in Path("/proc/self/net/dev").read_text().splitlines()[2:]]
    if found != ["lo"]:
        raise RuntimeError("this is the machine's own network: run it under `unshare --net`")
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{CENTRE}/32", "dev", "lo")
    holders: list[LocalProcess] = []
    try:
        hosts = [_host(name, number, directory, holders) for number, name in enumerate(names, start=1)]
        yield hosts
    finally:
        for holder in holders:
            holder.kill()


def _host(name: str, number: int, directory: Path, holders: list[LocalProcess]) -> Host:
    script = f"import signal, socket; socket.sethostname({name!r}); print('named', flush=True); signal.pause()"
    holder = LocalProcess(
        ["unshare", "--net", "--uts", sys.executable, "-c", script],
        directory=directory,
        name=f"host-{name}",
        on_parent_death=signal.SIGKILL,
    )
    holders.append(holder)
    holder.start().wait_ready(lambda: "named" in holder.tail())
    cable, here, there = f"cable{number}", f"10.213.{number}.1", f"10.213.{number}.2"
    _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
    _run("ip", "address", "add", f"{here}/30", "dev", cable)
    _run("ip", "link", "set", cable, "up")
    inside = _into(holder)
    _run(*inside, "ip", "link", "set", "lo", "up")
    _run(*inside, "ip", "address", "add", f"{there}/30", "dev", "eth0")
    _run(*inside, "ip", "link", "set", "eth0", "up")
    _run(*inside, "ip", "route", "add", "default", "via", here)
    return Host(name, cable, holder)


def _into(holder: LocalProcess) -> list[str]:
    return ["nsenter", "--target", str(holder.pid), "--net", "--uts"]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
