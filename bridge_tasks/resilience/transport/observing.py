"""States the fact of each exchange, good or bad. It decides nothing and changes nothing."""

import httpx

from bridge_tasks import events
from bridge_tasks.resilience.transport.call import call_of
from bridge_tasks.resilience.transport.deadline import Clock


class ObservingTransport(httpx.AsyncBaseTransport):
    """Emits one `RequestFinished` per exchange."""

    def __init__(self, inner: httpx.AsyncBaseTransport, *, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on and tell how it ended."""
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
