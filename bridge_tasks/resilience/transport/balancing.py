"""Sends each try to one of a service's replicas. Which one, and who rests, is `policy.balancing`'s to say.

A call avoids the replicas that it has met, so a retry goes elsewhere. A replica that cannot be connected to costs
no try: nothing was sent, so the next one is asked at once, within the call's deadline. The circuit breaker above
sees what the service does; what one replica does stays here.
"""

import threading
from functools import lru_cache

import httpx

from bridge_tasks import events
from bridge_tasks.resilience.policy import balancing as policy
from bridge_tasks.resilience.policy.balancing import BalancingConfig, Replicas
from bridge_tasks.resilience.policy.breaker import Outcome
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.call import FAILURE, NEUTRAL, SUCCESS, call_of, fault, verdict
from bridge_tasks.resilience.transport.deadline import remaining
from bridge_tasks.resilience.transport.racing import Abandoned
from bridge_tasks.resilience.transport.resolving import Target, Targets

MET = "bridge_met"
"""Request extension: the replicas that a call has met, oldest first; its tries and hedges share the list."""

TURNED = "bridge_turned"
"""Request extension: the replica that the request is turned to."""

FAILOVERS = 2
"""Further replicas that one try asks, at most, when connections fail."""

LARGE = 0.1
"""A body with more than this many seconds of allowance (about a megabyte) tells nothing of a replica's speed."""


class BalancingTransport(httpx.AsyncBaseTransport):
    """Balances over `targets`. While there is one only, it is called as if nobody stood here."""

    def __init__(
        self, inner: httpx.AsyncBaseTransport, *, targets: Targets, config: BalancingConfig, bottom: Bottom
    ) -> None:
        self._inner = inner
        self._targets = targets
        self._config = config
        self._clock = bottom.clock
        self._chance = bottom.chance
        self._lock = threading.Lock()
        self._known: tuple[Target, ...] = ()
        self._replicas: Replicas = ()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on to a replica, and to another where it cannot be connected to."""
        targets = self._targets.current()
        if len(targets) == 1:
            if TURNED in request.extensions:  # there were more of them when the call began
                _turn(request, targets[0])
            return await self._inner.handle_async_request(request)
        met: list[Target] = request.extensions.setdefault(MET, [])
        for _ in range(FAILOVERS):
            try:
                return await self._try(request, targets, met)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if not self._may_go_on(met):
                    raise
            targets = self._targets.current()
        return await self._try(request, targets, met)

    async def _try(self, request: httpx.Request, targets: tuple[Target, ...], met: list[Target]) -> httpx.Response:
        call = call_of(request)
        outcome = NEUTRAL
        timed = True  # also one that is cut off: it took that long at least
        began = self._clock()
        target = self._pick(targets, met, began)
        try:
            met.append(target)
            _turn(request, target)
            response = await self._inner.handle_async_request(request)
            outcome = verdict(call, response)
            timed = outcome is FAILURE or (outcome is SUCCESS and call.allowance <= LARGE)
        except Exception as error:
            outcome = fault(error)
            timed = outcome is FAILURE or isinstance(error, Abandoned)
            raise
        finally:
            now = self._clock()
            self._settle(call.service, target, outcome, now - began if timed else None, now)
        return response

    def _pick(self, targets: tuple[Target, ...], met: list[Target], now: float) -> Target:
        with self._lock:
            if targets is not self._known:
                self._replicas = policy.members(self._replicas, targets)
                self._known = targets
            self._replicas, replica = policy.pick(self._replicas, self._config, now, self._chance(), met)
        assert isinstance(replica.name, Target)  # noqa: S101 - for the type checker
        return replica.name

    def _may_go_on(self, met: list[Target]) -> bool:
        with self._lock:
            return remaining(self._clock) > 0 and policy.spare(self._replicas, self._config, self._clock(), met)

    def _settle(self, service: str, target: Target, outcome: Outcome, seconds: float | None, now: float) -> None:
        with self._lock:
            self._replicas, ejection = policy.settle(self._replicas, self._config, target, outcome, seconds, now)
        if ejection is not None:
            events.emit(events.ReplicaEjected(service, str(target), ejection.seconds, ejection.cause))

    async def aclose(self) -> None:
        """Close what is wrapped."""
        await self._inner.aclose()


def _turn(request: httpx.Request, target: Target) -> None:
    """Turn the request to a replica: the connection to its address, the words to its name."""
    turned: Target | None = request.extensions.get(TURNED)
    if target == turned:
        return
    if turned is None or target.authority != turned.authority:  # to look at a header costs more than all the rest
        request.headers["Host"] = target.authority
    request.url = _url(target, request.url.raw_path)
    request.extensions[TURNED] = target
    request.extensions["sni_hostname"] = target.name  # None: the host of the URL


@lru_cache(maxsize=1024)
def _url(target: Target, raw_path: bytes) -> httpx.URL:
    """Make it once: a client calls the same few addresses for ever."""
    return httpx.URL(scheme=target.scheme, host=target.host, port=target.port, raw_path=raw_path)
