"""What was asked of a service: the last requests, and how many of each kind there were.

Keeps sizes and a few headers, never a body: what a test may look at, no document can leak through.
"""

import re
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTROL_PREFIX = "/_sandbox"
RECORD = "bridge_tasks.sandbox.record"
"""The key of the ASGI scope under which a request's record is found, so that a fault can name itself there."""

_KEPT = 10_000
_HEADERS = (
    "x-correlation-id",
    "traceparent",
    "idempotency-key",
    "user-agent",
    "content-type",
    "content-length",
    "accept",
    "connection",
)
_PARAMETER = re.compile(r"(/stamp|/namespace)/.+")


@dataclass(slots=True)
class RequestRecord:
    """One request; noted on arrival, completed with the answer.

    `status` is None until (and unless) an answer was begun. `arrived_at` is in seconds since the epoch,
    `seconds` the time to the end of the answer, `body_size` in bytes. `file_hash` has commas for a batch.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    arrived_at: float
    body_size: int = 0
    status: int | None = None
    seconds: float | None = None
    fault: str | None = None
    file_hash: str | None = None

    @property
    def correlation_id(self) -> str | None:
        """The id the client sent, if it did."""
        return self.headers.get("x-correlation-id")


@dataclass(slots=True)
class Records:
    """The last ten thousand requests, and counts of all since the last `clear`."""

    recent: deque[RequestRecord] = field(default_factory=lambda: deque(maxlen=_KEPT))
    operations: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    peak_in_flight: int = 0
    _counted: set[int] = field(default_factory=set)
    """Requests in flight that were not forgotten meanwhile."""

    def arrived(self, record: RequestRecord) -> None:
        """Note a request."""
        self.recent.append(record)
        operation = _PARAMETER.sub(r"\1/*", record.path)
        self.operations[f"{record.method} {operation}"] += 1
        self._counted.add(id(record))
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def left(self, record: RequestRecord) -> None:
        """Note that nothing more will happen to a request."""
        self.in_flight -= 1
        if id(record) not in self._counted:
            return
        self._counted.remove(id(record))
        self.statuses[str(record.status or "none")] += 1
        if record.fault:
            self.faults[record.fault] += 1

    def select(self, correlation_id: str | None = None, path: str = "") -> list[RequestRecord]:
        """Return the requests with this correlation id and this part of a path, oldest first."""
        return [
            record
            for record in list(self.recent)
            if path in record.path and correlation_id in (None, record.correlation_id)
        ]

    def counts(self) -> dict[str, Any]:
        """Return the counts as plain JSON."""
        return {
            "total": self.operations.total(),
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "operations": dict(self.operations),
            "statuses": dict(self.statuses),
            "faults": dict(self.faults),
        }

    def clear(self) -> None:
        """Forget everything but what is still in flight."""
        self.recent.clear()
        self._counted.clear()
        for counter in (self.operations, self.statuses, self.faults):
            counter.clear()
        self.peak_in_flight = self.in_flight


class Recording:
    """ASGI middleware that notes every request in `records`, except those to the control routes."""

    def __init__(self, app: ASGIApp, records: Records, clock: Callable[[], float] = time.time) -> None:
        self._app = app
        self._records = records
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(CONTROL_PREFIX):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = RequestRecord(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers={name: headers[name] for name in _HEADERS if name in headers},
            arrived_at=self._clock(),
        )
        state = scope.setdefault("state", {})
        scope[RECORD] = record

        async def measured_receive() -> Message:
            message = await receive()
            record.body_size += len(message.get("body", b""))
            return message

        def complete() -> None:
            if record.seconds is None:
                record.seconds = self._clock() - record.arrived_at
                record.file_hash = state.get("file_hash")
                self._records.left(record)

        async def noted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            elif not message.get("more_body", False):
                complete()  # before the end is sent: whoever has the answer finds the record complete
            await send(message)

        self._records.arrived(record)
        try:
            await self._app(scope, measured_receive, noted_send)
        except Exception:
            record.status = record.status or 500  # what the outermost layer answers
            raise
        finally:
            complete()
