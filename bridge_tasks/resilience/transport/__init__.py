"""The way of one HTTP call, from a client's verb to a socket: one wrapper per concern.

The order, outer to inner, is written in `service_transport` and nowhere else. A wrapper takes the transport it
wraps first, acts by a policy, and raises only httpx's errors or `CircuitBreakerError`.
"""

from collections.abc import Callable, Sequence
from functools import partial

import httpx

from bridge_tasks.resilience.circuit_breaker import CircuitBreaker
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.transport.balancing import BalancingTransport
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.breaking import BreakingTransport
from bridge_tasks.resilience.transport.deadline import DeadlineTransport
from bridge_tasks.resilience.transport.observing import ObservingTransport
from bridge_tasks.resilience.transport.retrying import RetryingTransport

Wrapper = Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport]


def stack(http: httpx.AsyncBaseTransport, *wrappers: Wrapper) -> httpx.AsyncBaseTransport:
    """Put `wrappers` (outer to inner) round `http`."""
    for wrap in reversed(wrappers):
        http = wrap(http)
    return http


def service_transport(
    bottom: Bottom,
    *,
    replicas: Sequence[httpx.URL],
    deadline: float,
    retry: RetryConfig,
    breaker: CircuitBreaker,
) -> httpx.AsyncBaseTransport:
    """Build the whole way to one service. The breaker is per service and sees each try."""
    return stack(
        bottom.connect(),
        partial(DeadlineTransport, seconds=deadline, clock=bottom.clock),
        partial(RetryingTransport, config=retry, bottom=bottom),
        partial(BreakingTransport, breaker=breaker, clock=bottom.clock),
        partial(BalancingTransport, replicas=replicas),
        partial(ObservingTransport, clock=bottom.clock),
    )
