"""What a fault does to a request: ASGI middleware between the recorder and the application.

Every fault leaves the server fit for the next request. Those that need a socket say so when there is none.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from math import ceil
from random import Random

from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge_tasks.sandbox.envelope import envelope
from bridge_tasks.sandbox.faults import (
    Answering,
    Disconnect,
    Drip,
    Faults,
    GarbageJson,
    Hang,
    HugeJson,
    Late,
    Latency,
    Reset,
    Status,
    StatusError,
    Truncate,
    WrongContentType,
)
from bridge_tasks.sandbox.records import CONTROL_PREFIX, RECORD
from bridge_tasks.sandbox.wire import WIRE, Wire

_CHUNK = 1 << 16
_LOOK_SECONDS = 0.02


class FaultInjection:
    """Lets the fault in force, if any, have each request; the control routes are spared."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        spared = scope["type"] != "http" or scope["path"].startswith(CONTROL_PREFIX)
        generation = self._faults.generation  # read before the fault is taken, so that no `clear` is missed
        fault = None if spared else self._faults.take(scope["method"], scope["path"])
        if fault is None:
            await self._app(scope, receive, send)
            return
        scope[RECORD].fault = fault.kind
        if isinstance(fault, Late):
            body = await _drain(receive)
            await asyncio.sleep(fault.seconds)
            await self._app(scope, _replaying(body, receive), send)
        elif isinstance(fault, Answering):
            await self._in_place_of_the_answer(fault, generation, scope, receive, send)
        else:
            await self._to_the_answer(fault, scope, receive, send)

    async def _to_the_answer(
        self, fault: Latency | Drip | Truncate, scope: Scope, receive: Receive, send: Send
    ) -> None:
        start, body = await self._work(scope, receive)
        match fault:
            case Latency():
                await asyncio.sleep(_delay(fault, self._faults.chance))
                await send(start)
                await send({"type": "http.response.body", "body": body})
            case Drip():
                await send(start)
                for position in range(0, len(body), fault.size):
                    piece = body[position : position + fault.size]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    await asyncio.sleep(fault.seconds)
                await send({"type": "http.response.body"})
            case Truncate():
                await send(start)
                await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
                _wire(scope).hang_up(scope["client"])
                await _departure(receive)

    async def _in_place_of_the_answer(
        self, fault: Answering, generation: int, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if fault.after_work:
            await self._work(scope, receive)
        else:
            await _drain(receive)
        match fault:
            case Reset():
                _wire(scope).reset(scope["client"])
                await _departure(receive)
            case Disconnect():
                _wire(scope).hang_up(scope["client"])
                await _departure(receive)
            case Hang():
                departure = asyncio.create_task(_departure(receive))
                while not departure.done() and generation == self._faults.generation:
                    await asyncio.wait([departure], timeout=_LOOK_SECONDS)
                _wire(scope).hang_up(scope["client"])
                await departure
            case _:
                await _false_answer(fault)(scope, receive, send)

    async def _work(self, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
        """Let the application do its work; return the head and the body of its answer, unsent."""
        start: Message = {}
        body = bytearray()

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                body.extend(message.get("body", b""))

        await self._app(scope, receive, keep)
        return start, bytes(body)


def _false_answer(fault: Answering) -> Response:
    match fault:
        case Status():
            return JSONResponse(fault.body, fault.code, _retry_after(fault))
        case StatusError():
            return JSONResponse(envelope(status="error", error=fault.message))
        case WrongContentType():
            return HTMLResponse("<!doctype html><title>Welcome</title><h1>Not the service you asked for</h1>")
        case GarbageJson():
            return Response(b'{"status": "success", "data": {"file_ha\xff', media_type="application/json")
        case HugeJson():
            return StreamingResponse(_padding(fault.size), media_type="application/json")
        case _:
            raise TypeError(f"no answer is known for {fault!r}")


def _retry_after(fault: Status) -> dict[str, str]:
    if fault.retry_after is None:
        return {}
    if fault.as_date:
        return {"retry-after": formatdate(time.time() + fault.retry_after, usegmt=True)}
    return {"retry-after": str(ceil(fault.retry_after))}


async def _padding(size: int) -> AsyncIterator[bytes]:
    yield b'{"status": "success", "data": {"padding": "'
    for position in range(0, size, _CHUNK):
        yield b"x" * min(_CHUNK, size - position)
    yield b'"}, "error": null, "message": null, "metadata": null}'


def _delay(fault: Latency, chance: Random) -> float:
    return max(0.0, fault.seconds + chance.uniform(-fault.jitter, fault.jitter))


async def _drain(receive: Receive) -> list[Message]:
    """Read the request to its end, so that the client is listening by the time the fault happens."""
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _replaying(messages: list[Message], receive: Receive) -> Receive:
    """Give what was read already, then what comes."""
    left = iter(messages)

    async def replay() -> Message:
        return next(left, None) or await receive()

    return replay


async def _departure(receive: Receive) -> None:
    """Wait until the connection is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _wire(scope: Scope) -> Wire:
    wire: Wire | None = scope.get(WIRE)
    if wire is None:
        raise RuntimeError("this fault needs a socket: serve the application, do not call it in process")
    return wire
