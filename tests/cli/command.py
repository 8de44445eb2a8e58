"""The command as a stranger runs it: a process of its own, in a directory of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "bridge_tasks.cli")
NO_REDIS = "redis://127.0.0.1:1/0"


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that is over."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, which must be one line of JSON and nothing else."""
        (line,) = self.out.splitlines()
        return json.loads(line)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without anything that is meant for a deployment; wide enough for any table."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "CELERY_"))}
    paths = [str(REPOSITORY), kept.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "COLUMNS": "200", **(extra or {})}


def run(*arguments: str | Path, cwd: Path, extra: Mapping[str, str] | None = None, timeout: float = 60) -> Ended:
    """Run a command to its end."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(extra),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def seconds_to_load() -> float:
    """How long it takes just now to load what a command needs: that is for the machine to answer."""
    began = time.monotonic()
    needed = "import bridge_tasks.cli.health, bridge_tasks.cli.stamping"
    subprocess.run([sys.executable, "-c", needed], env=environment(), check=True)
    return time.monotonic() - began


def start(*arguments: str | Path, cwd: Path, extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Begin a command; a context manager that closes its pipes. The caller ends it."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 60) -> Ended:
    """Wait for the end, and no longer than `timeout` seconds."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Ended(process.returncode, out, err)


@dataclass(frozen=True, slots=True)
class Up:
    """A running `bridge-tasks up`: its directory, and what it said."""

    directory: Path
    addresses: dict[str, Any]

    def run(self, *arguments: str | Path) -> Ended:
        """Run a command as from another terminal in the same directory."""
        return run(*arguments, cwd=self.directory)

    def write(self, name: str, text: str) -> Path:
        """Make a file that jobs may read."""
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file


def eventually(check: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Poll until `check` holds; False when it never did."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def processes_that_know(text: str) -> list[str]:
    """The command lines of processes that have `text` in their command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            known = [(process / part).read_bytes() for part in ("cmdline", "environ")]
        except OSError:  # it ended meanwhile
            continue
        if any(text.encode() in part for part in known):
            found.append(known[0].replace(b"\0", b" ").decode(errors="replace"))
    return found


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root can read everything: be nobody for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
