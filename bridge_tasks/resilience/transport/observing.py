"""States the fact of each exchange, good or bad. It decides nothing; where one traces, the service is told."""

import httpx

from bridge_tasks import events, tracing
from bridge_tasks.resilience.transport.call import call_of
from bridge_tasks.resilience.transport.deadline import Clock

_TRIES = "bridge_tries"
_BAD_REQUEST = 400


class ObservingTransport(httpx.AsyncBaseTransport):
    """Emits one `RequestFinished` per exchange, and makes it a span of its own, which the service is told of."""

    def __init__(self, inner: httpx.AsyncBaseTransport, *, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on and tell how it ended."""
        if not tracing.is_on():
            return await self._observed(request)
        call = call_of(request)
        tries = request.extensions[_TRIES] = request.extensions.get(_TRIES, 0) + 1
        told = {"bridge.service": call.service, "bridge.try": tries, "server.address": request.url.host}
        with tracing.span(f"{request.method} {call.operation}", "client", None, told) as span:
            request.headers.update(span.carrier)
            response = await self._observed(request)
            span.tell({"http.response.status_code": response.status_code})
            if response.status_code >= _BAD_REQUEST:
                span.fail(f"HTTP {response.status_code}")
        return response

    async def _observed(self, request: httpx.Request) -> httpx.Response:
        began = self._clock()
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException as error:
            self._tell(request, began, None, type(error).__name__)
            raise
        self._tell(request, began, response.status_code, None)
        return response

    def _tell(self, request: httpx.Request, began: float, status: int | None, error: str | None) -> None:
        call = call_of(request)
        seconds = self._clock() - began
        events.emit(
            events.RequestFinished(
                call.service, call.operation, request.method, request.url.host, status, error, seconds
            )
        )

    async def aclose(self) -> None:
        """Close what is wrapped."""
        await self._inner.aclose()
