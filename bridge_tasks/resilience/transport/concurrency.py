"""Lets only so many calls of one process be under way at a service at a time; the rest stand in line for a little.

A place that comes free goes straight to who waits longest: nobody polls. How a waiter sleeps is the bottom's to
know (`Bottom.signal`), so that tasks block their thread, and coroutines only themselves.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from bridge_tasks import events
from bridge_tasks.errors import RateLimited
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.call import call_of
from bridge_tasks.resilience.transport.deadline import remaining
from bridge_tasks.resilience.transport.waking import Signal


@dataclass(slots=True, eq=False)
class _Waiter:
    signal: Signal
    has_place: bool = False


class Slots:
    """So many places, and the line of those who wait for one. Thread-safe.

    Args:
        size: places.
        signal: makes what a waiter sleeps on.
    """

    def __init__(self, size: int, signal: Callable[[], Signal]) -> None:
        self._free = size
        self._signal = signal
        self._line: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    async def take(self, patience: float) -> bool:
        """Take a place, waiting `patience` seconds at most; whoever gets one must `give` it back."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if patience <= 0:
                return False
            me = _Waiter(self._signal())
            self._line.append(me)
        try:
            await me.signal.wait(patience)
        except BaseException:
            if self._leave(me):
                self.give()
            raise
        return self._leave(me)

    def give(self) -> None:
        """Hand a place to the first in line, or leave it free."""
        while True:
            with self._lock:
                if not self._line:
                    self._free += 1
                    return
                heir = self._line.popleft()
                heir.has_place = True
            if heir.signal.set():
                return
            heir.has_place = False  # its event loop is closed

    def _leave(self, waiter: _Waiter) -> bool:
        """Step out of the line, and say whether a place was handed over, be it at the last moment."""
        with self._lock:
            if not waiter.has_place and waiter in self._line:
                self._line.remove(waiter)
            return waiter.has_place


class ConcurrencyTransport(httpx.AsyncBaseTransport):
    """Keeps the tries of one process that are under way to `size`.

    Raises:
        RateLimited: no place came free in time; nothing was sent.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, *, size: int, max_wait: float, bottom: Bottom) -> None:
        self._inner = inner
        self._slots = Slots(size, bottom.signal)
        self._max_wait = max_wait
        self._clock = bottom.clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on once there is a place for it."""
        if not await self._slots.take(min(self._max_wait, remaining(self._clock))):
            call = call_of(request)
            events.emit(events.CallHeldBack(call.service, call.operation, self._max_wait, "concurrency limit"))
            raise RateLimited(
                f"{call.service} {call.operation}: too many calls are under way", None, None, self._max_wait
            )
        try:
            return await self._inner.handle_async_request(request)
        finally:
            self._slots.give()

    async def aclose(self) -> None:
        """Close what is wrapped."""
        await self._inner.aclose()
