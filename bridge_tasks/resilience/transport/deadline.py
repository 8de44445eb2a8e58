"""The time a piece of work has in all: every try, every pause, and the reading of the body.

It is an instant of a monotonic clock in a context variable, so that whoever waits, however deep, can ask what is
left. Nested limits only ever shorten. Nothing here waits or interrupts.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import httpx

from bridge_tasks.resilience.transport.call import call_of

Clock = Callable[[], float]

_expires_at: ContextVar[float] = ContextVar("bridge_deadline", default=math.inf)


@contextmanager
def within(seconds: float, clock: Clock = time.monotonic) -> Iterator[None]:
    """Give the block at most `seconds`; a shorter limit already in force stays in force."""
    token = _expires_at.set(min(_expires_at.get(), clock() + seconds))
    try:
        yield
    finally:
        _expires_at.reset(token)


def remaining(clock: Clock = time.monotonic) -> float:
    """Return the seconds left (infinity where no limit is in force; never below 0)."""
    return max(_expires_at.get() - clock(), 0.0)


class DeadlineTransport(httpx.AsyncBaseTransport):
    """Gives a call `seconds` in all.

    Raises:
        httpx.ConnectTimeout: the work that the call belongs to has no time left; nothing was sent.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, *, seconds: float, clock: Clock) -> None:
        self._inner = inner
        self._seconds = seconds
        self._clock = clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on, with its end set."""
        with within(self._seconds + call_of(request).allowance, self._clock):
            if remaining(self._clock) <= 0:
                raise httpx.ConnectTimeout("no time left before the call was sent", request=request)
            return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close what is wrapped."""
        await self._inner.aclose()
