"""A transport that answers by script, and remembers what it was asked."""

from collections.abc import Callable

import httpx

from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.call import EXTENSION, Call
from tests.stopped_clock import StoppedClock

Line = int | httpx.Response | BaseException
"""A status, a whole response, or what is raised."""


class Scripted(httpx.AsyncBaseTransport):
    """Plays one line per request, the last one for ever; each takes `seconds` of `clock`."""

    def __init__(self, *script: Line, clock: StoppedClock | None = None, seconds: float = 0.0) -> None:
        self._script = list(script)
        self._clock = clock
        self._seconds = seconds
        self.requests: list[httpx.Request] = []
        self.urls: list[str] = []
        self.on_request: Callable[[], None] = lambda: None
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.urls.append(str(request.url))
        self.on_request()
        if self._clock is not None:
            self._clock.advance(self._seconds)
        line = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(line, BaseException):
            raise line
        return httpx.Response(line, request=request) if isinstance(line, int) else line

    async def aclose(self) -> None:
        self.closed = True


def asked(url: str = "http://service/stamp", **call: object) -> httpx.Request:
    """Make a request that belongs to a call with these attributes."""
    return httpx.Request("POST", url, extensions={EXTENSION: Call(service="Service", operation="stamp", **call)})  # type: ignore[arg-type] # each test names its own attributes


def still_bottom(clock: StoppedClock, chance: float = 0.0) -> Bottom:
    """Make a bottom on which waiting moves the stopped clock."""
    return Bottom(connect=lambda: Scripted(200), sleep=clock.sleep, clock=clock, chance=lambda: chance)
