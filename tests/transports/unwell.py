"""A small ASGI application that misbehaves by path, below what an application framework would let it do."""

import asyncio
import gzip

from starlette.types import Receive, Scope, Send

HEADERS: list[tuple[bytes, bytes]] = [(b"content-type", b"application/octet-stream")]


async def unwell(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901 - one short case per path
    """Answer one request.

    /echo returns the body; /hang never answers; /drip sends a byte every 20 ms for ever; /short closes before the
    promised end; /gzip compresses unasked; /bytes/N sends N bytes in pieces; /moved redirects; /refused says 413.
    """
    if scope["type"] != "http":
        return
    path: str = scope["path"]
    match path.split("/")[1:]:
        case ["echo"]:
            await _answer(send, 200, await _body(receive))
        case ["hang"]:
            await asyncio.sleep(60)
        case ["drip"]:
            await _begin(send, 200)
            for _ in range(3000):
                await send({"type": "http.response.body", "body": b".", "more_body": True})
                await asyncio.sleep(0.02)
        case ["short"]:
            await _begin(send, 200, [(b"content-length", b"1000")])
            await send({"type": "http.response.body", "body": b"too little", "more_body": True})
            raise ConnectionAbortedError
        case ["gzip"]:
            await _answer(send, 200, gzip.compress(b"unasked"), [(b"content-encoding", b"gzip")])
        case ["bytes", size]:
            await _begin(send, 200)
            await _pieces(send, int(size))
        case ["moved"]:
            await _answer(send, 307, b"", [(b"location", b"/echo")])
        case ["refused"]:
            await _answer(send, 413, b"too large")


async def _begin(send: Send, status: int, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*HEADERS, *(headers or [])]})


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await _begin(send, status, headers)
    await send({"type": "http.response.body", "body": body})


async def _pieces(send: Send, size: int) -> None:
    for start in range(0, size, 100):
        await send({"type": "http.response.body", "body": b"x" * min(100, size - start), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
