"""Two requests at once, of which the first good answer counts: tasks on asyncio, threads on the blocking bottom.

The one that lost is ended at once: a task is cancelled, a thread finds its socket shut. No leg outlives its race
for longer than a connection takes to be made.
"""

import asyncio
import contextvars
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx

T = TypeVar("T")

Leg = Callable[[], Coroutine[Any, Any, httpx.Response]]
"""Makes the request when called."""

THREADS = 16
"""Legs that run at once in a process of ours; a race that finds none free is run without a second leg."""


@dataclass(frozen=True, slots=True)
class Finish:
    """What a race came to: the answer, and whether the second leg gave it."""

    response: httpx.Response
    second: bool


class Race(Protocol):
    """Runs two legs."""

    async def __call__(
        self, first: Leg, second: Leg, *, after: float, good: Callable[[httpx.Response], bool]
    ) -> Finish:
        """Begin `first`, and `second` beside it where there is no answer `after` seconds.

        The first good answer wins. Where there is none, the first leg's end is returned, or raised.
        """
        ...


async def race_tasks(first: Leg, second: Leg, *, after: float, good: Callable[[httpx.Response], bool]) -> Finish:
    """Be the `Race` of asyncio."""
    legs = [asyncio.create_task(first())]
    try:
        waiting = (await asyncio.wait(legs, timeout=after))[1]
        if waiting:
            legs.append(asyncio.create_task(second()))
            waiting = set(legs)
        while waiting:
            ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for leg in ended:
                if not leg.cancelled() and leg.exception() is None and good(leg.result()):
                    return Finish(leg.result(), second=leg is not legs[0])
        return Finish(legs[0].result(), second=False)
    finally:
        for leg in legs:
            leg.cancel()
        await asyncio.gather(*legs, return_exceptions=True)


class Abandoned(httpx.TransportError):
    """The race was won by the other leg: nothing is known of this one."""


class Lifeline:
    """Lets one thread end what another one does on a socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = False

    @contextmanager
    def held(self, connection: socket.socket) -> Iterator[None]:
        """Do one thing on the socket; between two, and after the last, nobody can reach it by this line.

        Raises:
            Abandoned: the line was cut, before or meanwhile; then the socket may be shut, and is to be closed.
        """
        self._take_up(connection)
        try:
            yield
        finally:
            self._take_up(None)

    def _take_up(self, connection: socket.socket | None) -> None:
        with self._lock:
            self._socket = connection
            if self._cut:
                raise Abandoned("another request was answered first")

    def end(self) -> None:
        """Cut the line: whoever waits on the socket is woken by its end."""
        with self._lock:
            self._cut = True
            if self._socket is not None:
                with suppress(OSError):
                    # Not a TLS socket's own shutdown, which takes apart what the other thread is using.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


lifeline: ContextVar[Lifeline | None] = ContextVar("bridge_lifeline", default=None)
"""The line of the leg that this context is, if it is one."""


class ThreadRace:
    """The `Race` of a bottom that blocks. Its threads are started when first needed, after any fork."""

    def __init__(self, threads: int = THREADS) -> None:
        self._free = threading.BoundedSemaphore(threads)
        self._pool = futures.ThreadPoolExecutor(threads, "bridge-race")

    async def __call__(
        self, first: Leg, second: Leg, *, after: float, good: Callable[[httpx.Response], bool]
    ) -> Finish:
        """Run the legs in threads, which see this context's variables; wait for them in this one."""
        opening = self._start(first)
        if opening is None:
            return Finish(await first(), second=False)
        legs = [opening]
        try:
            futures.wait([opening.future], timeout=after)
            if not opening.future.done() and (beside := self._start(second)) is not None:
                legs.append(beside)
            for future in futures.as_completed([leg.future for leg in legs]):
                if future.exception() is None and good(future.result()):
                    return Finish(future.result(), second=future is not opening.future)
            return Finish(opening.future.result(), second=False)
        finally:
            for leg in legs:
                leg.line.end()

    def _start(self, leg: Leg) -> "_Running | None":
        if not self._free.acquire(blocking=False):
            return None
        line = Lifeline()

        def run() -> httpx.Response:
            lifeline.set(line)
            try:
                return _finished(leg())
            finally:
                self._free.release()

        return _Running(self._pool.submit(contextvars.copy_context().run, run), line)


@dataclass(frozen=True, slots=True)
class _Running:
    future: futures.Future[httpx.Response]
    line: Lifeline


def _finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never suspends, as `runtime.drive` does."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return] # StopIteration.value is untyped
    coroutine.close()
    raise RuntimeError("a request suspended on the blocking bottom")
