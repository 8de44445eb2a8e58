"""The bottom for tasks: coroutines that never suspend, because every wait inside them blocks the thread.

It drives httpcore's synchronous pool through an `async def`, so that one code path serves both worlds. Every
socket operation is cut to the time its try has left, so that a peer that drips bytes cannot outlast it. A small
request leaves in one piece: two would wake the service twice, and cost a tenth of a call.
"""

import math
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import h11
import httpcore
import httpx

from bridge_tasks.resilience.transport.bottom import (
    CHANGED,
    CLOSED,
    LIMITS,
    Body,
    Bottom,
    LocalFault,
    Whole,
    ssl_context,
    try_timeouts,
)
from bridge_tasks.resilience.transport.deadline import Clock
from bridge_tasks.resilience.transport.pools import Pools
from bridge_tasks.resilience.transport.racing import ThreadRace, lifeline
from bridge_tasks.resilience.transport.resolving import look_up_in_thread
from bridge_tasks.resilience.transport.waking import ThreadSignal

_HTTPCORE = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)

_try_ends: ContextVar[float] = ContextVar("bridge_try_ends", default=math.inf)


class BlockingExchange(httpx.AsyncBaseTransport):
    """The exchange for tasks. Thread-safe; must not be used in a process other than the one that made it."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._closed = False
        self._pools = Pools(self._pool, clock)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and read to the end.

        Raises:
            httpx.TransportError: the try failed.
            httpx.DecodingError: the answer is too large, or compressed.
        """
        if self._closed:
            raise LocalFault(CLOSED, request=request)
        url = request.url
        address = url.raw_scheme, url.raw_host, url.port
        pool = self._pools.of(address)  # opened before the try's time begins
        timeouts = try_timeouts(request, self._clock)
        outgoing = httpcore.Request(
            request.method,
            _place(*address, url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions={**request.extensions, "timeout": timeouts},
        )
        token = _try_ends.set(time.monotonic() + timeouts["read"])
        try:
            incoming = pool.handle_request(outgoing)
            try:
                headers = httpx.Headers(incoming.headers)
                body = Body(request, incoming.status, headers)
                for chunk in incoming.iter_stream():
                    body.add(chunk)
            finally:
                incoming.close()
        except h11.LocalProtocolError as error:
            raise LocalFault(CHANGED, request=request) from error
        except _HTTPCORE as error:
            raise LocalFault(CLOSED, request=request) if self._closed else _translated(error, request) from error
        finally:
            _try_ends.reset(token)
        return Whole(request, incoming.status, headers, body.content)

    async def aclose(self) -> None:
        """Close the pool."""
        self._closed = True
        self._pools.close()

    def _pool(self) -> httpcore.ConnectionPool:
        return httpcore.ConnectionPool(
            ssl_context=ssl_context(),
            max_connections=LIMITS.max_connections,
            max_keepalive_connections=LIMITS.max_keepalive_connections,
            keepalive_expiry=LIMITS.keepalive_expiry,
            network_backend=_BoundedBackend(self._refuse_if_closed),
        )

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise httpcore.ConnectError(CLOSED)


def _translated(error: Exception, request: httpx.Request) -> httpx.TransportError:
    """Return httpx's error of the same name: the two families are parallel by design."""
    known: type[httpx.TransportError] = getattr(httpx, type(error).__name__, httpx.TransportError)
    return known(str(error), request=request)


@lru_cache(maxsize=1024)
def _place(scheme: bytes, host: bytes, port: int | None, target: bytes) -> httpcore.URL:
    """Make it once: a client calls the same few addresses for ever."""
    return httpcore.URL(scheme=scheme, host=host, port=port, target=target)


def _left(timeout: float | None, late: type[Exception]) -> float:
    left = _try_ends.get() - time.monotonic()
    if left <= 0:
        raise late("the try's time is over")
    return left if timeout is None else min(timeout, left)


PIECE = 65536
"""Bytes sent at a time; and below which they wait for more, until the answer is asked for."""


class _BoundedStream(httpcore.NetworkStream):
    """A socket whose every operation ends with the try it serves."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._unsent = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._unsent:
            with suppress(httpcore.WriteError):  # as httpcore itself: there may be an answer all the same
                self._send(b"", timeout)
        with self._held():
            return self._inner.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if len(self._unsent) + len(buffer) < PIECE:
            self._unsent += buffer
        else:
            self._send(buffer, timeout)

    def _send(self, buffer: bytes, timeout: float | None) -> None:
        unsent, self._unsent = self._unsent, b""
        room = PIECE - len(unsent)
        # httpcore gives each partial send the whole timeout: small pieces keep a reader that dawdles in check.
        rest = memoryview(buffer)[room:]
        with self._held():
            self._inner.write(unsent + buffer[:room], _left(timeout, httpcore.WriteTimeout))
            for start in range(0, len(rest), PIECE):
                self._inner.write(
                    rest[start : start + PIECE],  # type: ignore[arg-type] # sockets send any buffer
                    _left(timeout, httpcore.WriteTimeout),
                )

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _BoundedStream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _held(self) -> AbstractContextManager[None]:
        """Let a race that this request has lost end what is done on the socket."""
        line = lifeline.get()
        return line.held(self._inner.get_extra_info("socket")) if line else nullcontext()


class _BoundedBackend(httpcore.SyncBackend):
    """Hands out bounded sockets.

    Args:
        still_wanted: raises where the pool was closed meanwhile: it would never close what it does not hold yet.
    """

    def __init__(self, still_wanted: Callable[[], None]) -> None:
        self._still_wanted = still_wanted

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        stream = super().connect_tcp(host, port, left, local_address, socket_options)
        try:
            self._still_wanted()
        except httpcore.ConnectError:
            stream.close()
            raise
        return _BoundedStream(stream)


async def _sleep(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - blocking is what this bottom is for


def blocking_bottom() -> Bottom:
    """Return the bottom for tasks."""
    return Bottom(
        connect=BlockingExchange,
        sleep=_sleep,
        race=ThreadRace(),
        look_up=look_up_in_thread,
        signal=ThreadSignal,
    )
