"""Sends a second request beside a read that is slow, and takes the first good answer. Off by default.

When, and how often, is `policy.hedging`'s to say; how two requests run at once, the bottom's. Only reads are
hedged: what may be asked twice without a trace. Below stands the circuit breaker, which sees both requests.
"""

import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial

import httpx

from bridge_tasks import events
from bridge_tasks.resilience.policy import hedging as policy
from bridge_tasks.resilience.policy.breaker import Outcome
from bridge_tasks.resilience.policy.hedging import HedgingConfig, Pace
from bridge_tasks.resilience.transport.balancing import MET
from bridge_tasks.resilience.transport.call import Call, call_of, verdict
from bridge_tasks.resilience.transport.deadline import Clock, remaining
from bridge_tasks.resilience.transport.racing import Race


class HedgingTransport(httpx.AsyncBaseTransport):
    """Hedges the reads of one service.

    Args:
        inner: what sends one request.
        config: when, and how many.
        race: how two run at once.
        clock: seconds, monotonic.
        pay: asks the retry budget for one more request; what is false means that it does not bear it.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        config: HedgingConfig,
        race: Race,
        clock: Clock,
        pay: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._inner = inner
        self._config = config
        self._race = race
        self._clock = clock
        self._pay = pay
        self._lock = threading.Lock()
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on, and once more where the answer keeps us waiting."""
        call = call_of(request)
        if not call.read:
            return await self._inner.handle_async_request(request)
        began = self._clock()
        with self._lock:
            self._paces[call.operation], after = policy.begin(self._paces[call.operation], self._config)
        if after is None or after >= remaining(self._clock):
            response = await self._inner.handle_async_request(request)
        else:
            response = await self._hedged(request, after)
        if _good(call, response):
            with self._lock:
                self._paces[call.operation] = policy.finish(self._paces[call.operation], self._clock() - began)
        return response

    async def _hedged(self, request: httpx.Request, after: float) -> httpx.Response:
        call = call_of(request)
        request.extensions.setdefault(MET, [])  # shared, so that the second goes to another replica
        sent = False

        async def second() -> httpx.Response:
            nonlocal sent
            with self._lock:
                self._paces[call.operation], allowed = policy.spend(self._paces[call.operation])
            if not allowed or (self._pay is not None and not await self._pay()):
                raise _NotSentError("no hedge is left", request=request)
            sent = True
            return await self._inner.handle_async_request(_again(request))

        finish = await self._race(
            lambda: self._inner.handle_async_request(request), second, after=after, good=partial(_good, call)
        )
        if sent:
            events.emit(events.RequestHedged(call.service, call.operation, after, finish.second))
        return finish.response

    async def aclose(self) -> None:
        """Close what is wrapped."""
        await self._inner.aclose()


class _NotSentError(httpx.TransportError):
    """There is no second request after all: the first one decides."""


def _good(call: Call, response: httpx.Response) -> bool:
    return verdict(call, response) is Outcome.SUCCESS


def _again(request: httpx.Request) -> httpx.Request:
    """Copy a request: those who send it turn it to their replica."""
    return httpx.Request(
        request.method,
        request.url,
        headers=request.headers,
        stream=request.stream,
        extensions=dict(request.extensions),
    )
