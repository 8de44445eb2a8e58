"""Serve applications on ports of 127.0.0.1: in a thread for tests, several in one process for the command line.

Never listens on another address unless told to, as in a container. Holds the port beside the socket that listens,
so it can refuse connections without losing it.
"""

import asyncio
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge_tasks.sandbox.ports import HOST, HeldPort, bound
from bridge_tasks.sandbox.wire import WIRE

_START_SECONDS = 10.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.005
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 1
_DATE_HEADER_SECONDS = 1.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, for zero seconds: closing sends RST, not FIN.


class SandboxServer(uvicorn.Server):
    """One application on one port; port 0 takes a free one.

    It listens at once, so `url` is known, and nobody else can take the port, before the server runs. Who connects
    meanwhile waits.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, app: ASGIApp, port: int = 0, host: str = HOST) -> None:
        self._host = host
        self._held = HeldPort(port, host)
        self.port = self._held.number
        self._listeners = [self._listener()]
        self.url = f"http://{HOST}:{self.port}"
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reopening: asyncio.Task[None] | None = None

        async def wired(scope: Scope, receive: Receive, send: Send) -> None:
            scope[WIRE] = self
            await app(scope, receive, send)

        super().__init__(
            uvicorn.Config(
                wired,
                http="auto",
                loop="asyncio",
                ws="none",
                log_config=None,
                log_level="critical",
                access_log=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on the port that the constructor bound, until `stop`."""
        try:
            await super().serve(sockets or self._listeners)
        finally:
            self._held.release()

    async def main_loop(self) -> None:
        """Wait for `stop`, refreshing the date header; the inherited loop would look ten times a second."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _DATE_HEADER_SECONDS)
        if self._reopening:
            self._reopening.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone; `serve_until_signalled` handles them for all servers at once."""
        yield

    def stop(self) -> None:
        """Ask the server to end; may be called from any thread, and more than once."""
        self.should_exit = True
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    def reset(self, client: tuple[str, int]) -> None:
        """Break a client's connection with a TCP reset."""
        for transport in self._transports(client):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()

    def hang_up(self, client: tuple[str, int]) -> None:
        """Close a client's connection in good order, after what was written has left."""
        for transport in self._transports(client):
            transport.close()

    async def refuse(self, seconds: float) -> None:
        """Close the listener and every idle connection, and listen again on the same port after `seconds`."""
        if self._reopening:
            self._reopening.cancel()
        for server in self.servers:
            server.close()
        self._listeners[0].close()
        # Bound but not listening: the kernel refuses connections, and nobody can take the port meanwhile.
        self._listeners[0] = bound(self._host, self.port)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        self._reopening = asyncio.create_task(self._reopen_after(seconds))

    def _listener(self) -> socket.socket:
        """Listen on the port that is held: somebody else may hold it as well, but only one can do this."""
        listener: socket.socket | None = None
        try:
            listener = bound(self._host, self.port)
            listener.listen()
        except OSError:
            if listener:
                listener.close()
            self._held.release()
            raise
        return listener

    async def _reopen_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        protocol: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        server = await asyncio.get_running_loop().create_server(
            lambda: protocol(self.config, self.server_state, self.lifespan.state), sock=self._listeners[0]
        )
        self.servers = [server]

    def _transports(self, client: tuple[str, int]) -> list[asyncio.Transport]:
        return [
            connection.transport
            for connection in self.server_state.connections
            if connection.transport.get_extra_info("peername") == client
        ]


@contextmanager
def running(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serve `app` from a thread of this process for the length of a `with` block; gives its URL.

    Raises:
        OSError: the port is taken.
        RuntimeError: the server has ended, or not started within ten seconds.
    """
    server = SandboxServer(app, port)
    thread = threading.Thread(target=server.run, name=f"sandbox-{server.port}", daemon=True)
    thread.start()
    try:
        _wait_until_started(server, thread)
        yield server.url
    finally:
        server.stop()
        thread.join(_STOP_SECONDS)


async def serve_until_signalled(servers: Sequence[SandboxServer], ready: Callable[[], None]) -> None:
    """Run all servers in this process until SIGTERM or SIGINT; calls `ready` once they all answer."""

    def stop() -> None:
        for server in servers:
            server.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(server.serve())
        while not all(server.started or server.should_exit for server in servers):  # noqa: ASYNC110 - uvicorn tells by a flag only
            await asyncio.sleep(_POLL_SECONDS)
        ready()


def _wait_until_started(server: SandboxServer, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError(f"the sandbox server did not start on port {server.port}")
        time.sleep(_POLL_SECONDS)
