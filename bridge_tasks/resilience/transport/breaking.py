"""Asks the circuit breaker before each try and tells it afterwards. What counts as failure: `call.verdict`."""

import httpx

from bridge_tasks.resilience.circuit_breaker import CircuitBreaker
from bridge_tasks.resilience.transport.call import NEUTRAL, call_of, fault, verdict
from bridge_tasks.resilience.transport.deadline import Clock, remaining


class BreakingTransport(httpx.AsyncBaseTransport):
    """Guards one service.

    Raises:
        CircuitBreakerError: the circuit refused; nothing was sent.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport, *, breaker: CircuitBreaker, clock: Clock) -> None:
        self._inner = inner
        self._breaker = breaker
        self._clock = clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on if the circuit lets it; the permit goes back however the try ends."""
        permit = await self._breaker.admit(remaining(self._clock))
        began = self._clock()
        outcome = NEUTRAL
        try:
            response = await self._inner.handle_async_request(request)
            outcome = verdict(call_of(request), response)
        except Exception as error:
            outcome = fault(error)
            raise
        finally:
            await self._breaker.settle(permit, outcome, self._clock() - began)
        return response

    async def aclose(self) -> None:
        """Close what is wrapped."""
        await self._inner.aclose()
