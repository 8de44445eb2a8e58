"""Long-running children of this process: started in their own session, waited for, and surely ended.

Signals only what it started. On Linux a child also ends when its parent dies, however that dies.
"""

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.02
_TAIL_BYTES = 4096
_IN_USE = os.strerror(errno.EADDRINUSE)


class ProcessFailed(RuntimeError):  # noqa: N818 - a state of the child, told with the end of its log
    """A child ended, or was not ready in time; the message ends with the last lines of its log."""

    @property
    def port_taken(self) -> bool:
        """Whether the log tells that somebody else listens where the child wanted to."""
        return _IN_USE in str(self)


class LocalProcess:
    """One child process, whose output goes to `<directory>/<name>.log`.

    Use it as a context manager, or pair `start` with `terminate`. It may be started again after it has ended.
    The kernel ties a child to the *thread* that started it: start children from a thread that lives as long.

    Args:
        command: program and arguments; no shell is involved.
        directory: where the log goes; it must exist.
        name: what messages and the log file call the child.
        environment: the child's whole environment; default: a copy of this process's.
        on_parent_death: what the kernel sends the child when this process dies (Linux only).
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        name: str,
        environment: Mapping[str, str] | None = None,
        on_parent_death: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.command = list(command)
        self.name = name
        self.log = directory / f"{name}.log"
        self._environment = environment
        self._on_parent_death = on_parent_death
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.terminate()

    @property
    def pid(self) -> int:
        """The child's process id, which is its group's id as well.

        Raises:
            RuntimeError: it was never started.
        """
        return self._started().pid

    @property
    def returncode(self) -> int | None:
        """The exit status; negative for a signal; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        """Whether the child lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the child; does nothing while it runs.

        Raises:
            OSError: the program cannot be run.
        """
        if self.running:
            return self
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the caller's own program, no shell
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                preexec_fn=self._tie_to(os.getpid()),  # noqa: PLW1509 - one system call, no lock, no allocation
            )
        return self

    def wait_ready(self, check: Callable[[], bool], timeout: float = 10.0) -> None:
        """Poll `check` until it is true.

        Raises:
            ProcessFailed: the child ended, or `timeout` seconds have passed.
        """
        deadline = time.monotonic() + timeout
        while True:
            if not self.running:
                raise ProcessFailed(f"{self.name} ended with status {self.returncode}\n{self.tail()}")
            if check():
                return
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name} was not ready within {timeout} s\n{self.tail()}")
            time.sleep(_POLL_SECONDS)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the child to end by itself and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        return self._started().wait(timeout)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone; nothing happens if it has ended."""
        self._started().send_signal(number)

    def terminate(self, grace: float = 5.0) -> None:
        """End the child and its group: SIGTERM to the child, SIGKILL to all after `grace` seconds at most.

        Only the child gets SIGTERM: a Celery worker, say, winds its own children down. May be repeated.
        """
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)  # a stopped child would not see the first
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        _kill_group(process)

    def kill(self) -> None:
        """End the child and its group with SIGKILL, as a crash would; may be repeated."""
        process, self._process = self._process, None
        if process is not None:
            _kill_group(process)

    def tail(self) -> str:
        """Return the end of the log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            return log.read().decode(errors="replace")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} has not been started")
        return self._process

    def _tie_to(self, parent: int) -> Callable[[], None] | None:
        """Make the function that a new child calls to be told of this process's death."""
        if _LIBC is None:
            return None
        prctl, number = _LIBC.prctl, int(self._on_parent_death)

        def tie() -> None:
            prctl(_PR_SET_PDEATHSIG, number)
            if os.getppid() != parent:  # it died before the call above
                os.kill(os.getpid(), number)

        return tie


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
