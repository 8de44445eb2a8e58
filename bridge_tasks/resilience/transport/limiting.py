"""Holds a try back while the service wants to be left alone, or its rate is used up; tells what it hears.

A short wait is waited out, within the call's deadline. A longer one is the caller's to arrange: nothing is sent,
and the error says when to come back. Inside the retries: each try is counted, and each 429 heard at once.
"""

from datetime import UTC, datetime

import httpx

from bridge_tasks import events
from bridge_tasks.errors import CircuitBreakerError, RateLimited, ServiceBusy
from bridge_tasks.resilience.limits import ServiceLimits
from bridge_tasks.resilience.policy.retry import UNPROCESSED_STATUSES, retry_after
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.call import call_of
from bridge_tasks.resilience.transport.deadline import remaining


class LimitingTransport(httpx.AsyncBaseTransport):
    """Keeps to one service's limits.

    Raises:
        ServiceBusy: the service asked for patience; nothing was sent.
        RateLimited: the rate is used up for longer than a little; nothing was sent.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, *, limits: ServiceLimits, bottom: Bottom) -> None:
        self._inner = inner
        self._limits = limits
        self._bottom = bottom

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on when its turn has come."""
        limits, call = self._limits, call_of(request)
        operation = call.operation
        if held := await limits.hold():
            await self._wait_out_hold(held, operation)
        if limits.limited:
            await self._wait_for_token(operation)
        try:
            response = await self._inner.handle_async_request(request)
        except CircuitBreakerError:
            limits.unused(operation)
            raise
        except BaseException:
            limits.tried()
            raise
        limits.tried()
        if response.status_code in UNPROCESSED_STATUSES and response.status_code not in call.expected:
            await limits.throttled(retry_after(response.headers.get("retry-after"), datetime.now(UTC)))
        return response

    async def _wait_out_hold(self, held: float, operation: str) -> None:
        if held > self._patience():
            self._tell(operation, held, "service busy")
            raise ServiceBusy(f"{self._limits.service} asked to be left alone", None, None, round(held, 3))
        await self._wait(operation, held, "service busy")

    async def _wait_for_token(self, operation: str) -> None:
        granted, wait = await self._limits.take(operation, self._patience())
        if not granted:
            self._tell(operation, wait, "rate limit")
            raise RateLimited(
                f"{self._limits.service} {operation}: the rate limit is used up", None, None, round(wait, 3)
            )
        if wait:
            await self._wait(operation, wait, "rate limit")

    async def _wait(self, operation: str, seconds: float, cause: str) -> None:
        await self._bottom.sleep(seconds)
        events.emit(events.CallDelayed(self._limits.service, operation, seconds, cause))

    def _patience(self) -> float:
        return min(self._limits.limits.max_wait, remaining(self._bottom.clock))

    def _tell(self, operation: str, wait: float, cause: str) -> None:
        events.emit(events.CallHeldBack(self._limits.service, operation, wait, cause))

    async def aclose(self) -> None:
        """Close what is wrapped."""
        await self._inner.aclose()
