"""How one waiter sleeps until another wakes it: on its event loop, or in its thread. Part of the bottom."""

import asyncio
import threading
from typing import Protocol


class Signal(Protocol):
    """What one waiter sleeps on; whoever wakes it may be another task or another thread."""

    async def wait(self, seconds: float) -> None:
        """Sleep until woken, for `seconds` at most."""
        ...

    def set(self) -> bool:
        """Wake the waiter; False: it will never wake."""
        ...


class LoopSignal:
    """A `Signal` for asyncio; made on the waiter's loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = self._loop.create_future()

    async def wait(self, seconds: float) -> None:
        """Sleep until woken, for `seconds` at most."""
        await asyncio.wait((self._woken,), timeout=seconds)

    def set(self) -> bool:
        """Wake the waiter; False: its loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            return False
        return True

    def _wake(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)


class ThreadSignal:
    """A `Signal` for tasks: the thread blocks."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    async def wait(self, seconds: float) -> None:
        """Sleep until woken, for `seconds` at most."""
        self._woken.wait(seconds)

    def set(self) -> bool:
        """Wake the waiter."""
        self._woken.set()
        return True
