"""What differs between asyncio callers and tasks: how bytes move, how one waits, and what time it is.

Everything above is written once. An exchange sends one request and reads the whole response, within the time
of one try and a size; what it returns needs no more I/O. The bottom for tasks is `blocking`.
"""

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import IO, Any

import h11
import httpx
import orjson

from bridge_tasks.resilience.transport.call import call_of
from bridge_tasks.resilience.transport.deadline import Clock, remaining
from bridge_tasks.resilience.transport.racing import Race, race_tasks
from bridge_tasks.resilience.transport.resolving import LookUp, look_up_in_task
from bridge_tasks.resilience.transport.waking import LoopSignal, Signal

CONNECT_SECONDS = 5.0
"""Time to connect, or to get a pooled connection, at most: httpx's own default."""

MAX_RESPONSE_BYTES = 256 * 1024 * 1024
"""An answer beyond this is refused while it is read. The largest honest one is a stamped text (100 MiB)."""

LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
"""The guide's pool."""

SINK = "bridge_sink"
"""Request extension: a `Sink` that takes the body of a 2xx answer instead of memory."""


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a body is to go, and how many bytes of it at most."""

    file: IO[bytes]
    limit: int


@dataclass(frozen=True, slots=True)
class Bottom:
    """The things that touch the world.

    Attributes:
        connect: opens the exchange (it connects when first used).
        sleep: waits for seconds.
        clock: seconds, monotonic.
        chance: a number drawn from [0, 1).
        race: runs two requests at once; None where that cannot be done.
        look_up: looks names up beside the calls; None where there are none.
        signal: makes what a coroutine sleeps on until another wakes it.
    """

    connect: Callable[[], httpx.AsyncBaseTransport]
    sleep: Callable[[float], Awaitable[None]]
    clock: Clock = time.monotonic
    chance: Callable[[], float] = random.random
    race: Race | None = None
    look_up: LookUp | None = None
    signal: Callable[[], Signal] = LoopSignal


_ENCODING = b"content-encoding"
"""Looked for in the raw pairs: to look one header up by its name, httpx decodes them all."""


class Body:
    """A response's body while it arrives: bounded, and never compressed (we ask for that)."""

    def __init__(self, request: httpx.Request, status: int, headers: httpx.Headers) -> None:
        if any(name.lower() == _ENCODING and value.lower() != b"identity" for name, value in headers.raw):
            raise httpx.DecodingError("the answer is compressed, which was not asked for", request=request)
        sink = request.extensions.get(SINK) if httpx.codes.is_success(status) else None
        self._request = request
        self._file = sink.file if isinstance(sink, Sink) else None
        self._limit = sink.limit if isinstance(sink, Sink) else MAX_RESPONSE_BYTES
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Take in one chunk.

        Raises:
            httpx.DecodingError: the body exceeds its limit.
        """
        self._size += len(chunk)
        if self._size > self._limit:
            raise httpx.DecodingError(f"the answer exceeds {self._limit} bytes", request=self._request)
        if self._file is not None:
            self._file.write(chunk)
        else:
            self._chunks.append(chunk)

    @property
    def content(self) -> bytes:
        """What was kept in memory."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)


class Whole(httpx.Response):
    """A response that has been read: httpx's own, without its search for a way to decode the body."""

    def __init__(self, request: httpx.Request, status: int, headers: httpx.Headers, content: bytes) -> None:
        super().__init__(status, headers=headers, stream=httpx.ByteStream(content), request=request)
        self._content = content
        self.is_stream_consumed = self.is_closed = True

    def json(self, **options: Any) -> Any:
        """Return the body, read by the quicker parser; what that one refuses (NaN, UTF-16), by httpx's."""
        try:
            return super().json(**options) if options else orjson.loads(self._content)
        except orjson.JSONDecodeError:
            return super().json()


def try_timeouts(request: httpx.Request, clock: Clock) -> dict[str, float]:
    """Return the seconds that each step of one try may take: the try's own limit, or what time is left."""
    own = request.extensions.get("timeout", {}).get("read") or CONNECT_SECONDS
    limit = min(own + call_of(request).allowance, remaining(clock))
    connect = min(CONNECT_SECONDS, limit * 0.9)  # so that a full pool is told from a slow service
    return {"connect": connect, "pool": connect, "read": limit, "write": limit}


class LocalFault(httpx.LocalProtocolError):
    """The try failed on our side; the message may be shown, and says nothing of the service's health."""


CHANGED = "what was sent changed while it was read"
CLOSED = "the client was closed meanwhile"


class AsyncExchange(httpx.AsyncBaseTransport):
    """The exchange for asyncio: an httpx transport, with the whole try under one timeout.

    Args:
        connect: opens the transport; once, and again for another event loop, since a pool belongs to one.
        clock: seconds, monotonic.
    """

    def __init__(self, connect: Callable[[], httpx.AsyncBaseTransport], clock: Clock = time.monotonic) -> None:
        self._connect = connect
        self._clock = clock
        self._inner: httpx.AsyncBaseTransport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and read to the end.

        Raises:
            httpx.TransportError: the try failed.
            httpx.DecodingError: the answer is too large, or compressed.
        """
        if self._closed:
            raise LocalFault(CLOSED, request=request)
        inner = self._opened()  # before the try's time begins
        timeouts = try_timeouts(request, self._clock)
        request.extensions["timeout"] = timeouts
        try:
            async with asyncio.timeout(timeouts["read"]):
                response = await inner.handle_async_request(request)
                try:
                    body = Body(request, response.status_code, response.headers)
                    async for chunk in response.stream:  # type: ignore[union-attr] # async by contract
                        body.add(chunk)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx.ReadTimeout(f"no full answer in {timeouts['read']:.3g} s", request=request) from None
        except h11.LocalProtocolError as error:
            raise LocalFault(CHANGED, request=request) from error
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            if self._closed:
                raise LocalFault(CLOSED, request=request) from error
            raise
        return Whole(request, response.status_code, response.headers, body.content)

    async def aclose(self) -> None:
        """Close the pool."""
        self._closed = True
        if self._inner is not None and self._loop is asyncio.get_running_loop():
            await self._inner.aclose()

    def _opened(self) -> httpx.AsyncBaseTransport:
        loop = asyncio.get_running_loop()
        if self._inner is None or self._loop is not loop:
            self._inner, self._loop = self._connect(), loop
        return self._inner


@cache
def ssl_context() -> ssl.SSLContext:
    """Return what all pools of this process share: to read the certificates takes tens of milliseconds."""
    return httpx.create_ssl_context(trust_env=False)


def asyncio_bottom() -> Bottom:
    """Return the bottom for asyncio callers: real sockets."""
    return Bottom(
        connect=lambda: AsyncExchange(
            lambda: httpx.AsyncHTTPTransport(verify=ssl_context(), limits=LIMITS, trust_env=False)
        ),
        sleep=asyncio.sleep,
        race=race_tasks,
        look_up=look_up_in_task,
    )


def app_bottom(app: Callable[..., Awaitable[None]]) -> Bottom:
    """Return the bottom that calls an ASGI application in this process."""
    return Bottom(
        connect=lambda: AsyncExchange(lambda: httpx.ASGITransport(app, raise_app_exceptions=False)),
        sleep=asyncio.sleep,
        race=race_tasks,
    )
