"""A small ASGI application that hosts content, well or badly, by path."""

import asyncio
import gzip

from starlette.types import Receive, Scope, Send


class Host:
    """Counts how often each path was asked for.

    /ok gives `hello`; /bytes/N gives N bytes; /endless never stops; /drip gives a byte now and then; /gzip
    compresses unasked; /moved redirects to /ok; /status/N answers that status; /once/N the first time only.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        self.asked.append(path)
        match path.split("/")[1:]:
            case ["ok"]:
                await _answer(send, 200, b"hello")
            case ["bytes", size]:
                await _answer(send, 200, b"x" * int(size))
            case ["endless"]:
                await _stream(send, b"x" * 1000, 0)
            case ["drip"]:
                await _stream(send, b".", 0.02)
            case ["gzip"]:
                await _answer(send, 200, gzip.compress(b"unasked"), (b"content-encoding", b"gzip"))
            case ["moved"]:
                await _answer(send, 302, b"", (b"location", b"/ok"))
            case ["status", status]:
                await _answer(send, int(status), b"the host's own words")
            case ["once", status]:
                await _answer(send, int(status) if self.asked.count(path) == 1 else 200, b"hello")


async def _stream(send: Send, piece: bytes, seconds: float) -> None:
    """Send for a minute, or until the client has gone (the server then raises, or cancels)."""
    await _begin(send, 200)
    for _ in range(3000):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(seconds)


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await _begin(send, status, *headers)
    await send({"type": "http.response.body", "body": body})


async def _begin(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
