"""The way of one HTTP call, from a client's verb to a socket: one wrapper per concern.

The order, outer to inner, is written in `service_transport` and nowhere else. A wrapper takes the transport it
wraps first, acts by a policy, and raises only httpx's errors or one that says that nothing was sent
(`CircuitBreakerError`, `ServiceBusy`, `RateLimited`).
"""

from collections.abc import Callable, Sequence
from functools import partial

import httpx

from bridge_tasks.resilience.circuit_breaker import CircuitBreaker
from bridge_tasks.resilience.limits import ServiceLimits
from bridge_tasks.resilience.policy.balancing import BalancingConfig
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.hedging import HedgingConfig
from bridge_tasks.resilience.policy.limits import LimitsConfig
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.state.limits_port import LimitStore
from bridge_tasks.resilience.state.local import LocalCircuitStore
from bridge_tasks.resilience.state.local_limits import LocalLimitStore
from bridge_tasks.resilience.state.port import CircuitStore
from bridge_tasks.resilience.state.redis_circuit import Listener, RedisCircuitStore
from bridge_tasks.resilience.state.redis_limits import RedisLimitStore
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.resilience.transport.balancing import BalancingTransport
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.breaking import BreakingTransport
from bridge_tasks.resilience.transport.concurrency import ConcurrencyTransport
from bridge_tasks.resilience.transport.deadline import DeadlineTransport
from bridge_tasks.resilience.transport.hedging import HedgingTransport
from bridge_tasks.resilience.transport.limiting import LimitingTransport
from bridge_tasks.resilience.transport.observing import ObservingTransport
from bridge_tasks.resilience.transport.resolving import Targets
from bridge_tasks.resilience.transport.retrying import RetryingTransport

Wrapper = Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport]
"""Puts one transport round another; `None` in its place: not wanted here."""


def stack(http: httpx.AsyncBaseTransport, *wrappers: Wrapper | None) -> httpx.AsyncBaseTransport:
    """Put `wrappers` (outer to inner) round `http`."""
    for wrap in reversed(wrappers):
        http = wrap(http) if wrap else http
    return http


def service_breaker(
    name: str,
    config: CircuitBreakerConfig,
    bottom: Bottom,
    shared: SharedRedis | None = None,
    listener: Listener | None = None,
) -> CircuitBreaker:
    """Make the breaker of one service: with the whole fleet's state where there is a Redis."""
    store: CircuitStore = LocalCircuitStore(config, bottom.clock, chance=bottom.chance)
    if shared is not None:
        store = RedisCircuitStore(
            name, config, shared, clock=bottom.clock, chance=bottom.chance, listener=listener
        )
    return CircuitBreaker(name, config, store=store, clock=bottom.clock)


def service_limits(
    service: str, limits: LimitsConfig, retries: BudgetConfig, bottom: Bottom, shared: SharedRedis | None = None
) -> ServiceLimits:
    """Make what a process knows of a service's limits: with the whole fleet's knowledge where there is a Redis."""
    store: LimitStore = LocalLimitStore(retries, bottom.clock)
    if shared is not None:
        store = RedisLimitStore(service, retries, shared, local=store)
    return ServiceLimits(service, limits, retries, store=store, clock=bottom.clock, chance=bottom.chance)


def service_transport(
    bottom: Bottom,
    *,
    replicas: Sequence[httpx.URL],
    deadline: float,
    retry: RetryConfig,
    breaker: CircuitBreaker,
    balancing: BalancingConfig | None = None,
    hedging: HedgingConfig | None = None,
    limits: ServiceLimits | None = None,
) -> httpx.AsyncBaseTransport:
    """Build the whole way to one service. Limits and breaker are per service and see each try."""
    limits = limits or ServiceLimits.alone(bottom.clock, bottom.chance)
    return stack(
        bottom.connect(),
        partial(DeadlineTransport, seconds=deadline, clock=bottom.clock),
        partial(RetryingTransport, config=retry, bottom=bottom, limits=limits),
        _hedging(hedging, limits, bottom),
        _concurrency(limits, bottom),
        partial(LimitingTransport, limits=limits, bottom=bottom),
        partial(BreakingTransport, breaker=breaker, clock=bottom.clock),
        _balancing(replicas, balancing or BalancingConfig(), bottom),
        partial(ObservingTransport, clock=bottom.clock),
    )


def _hedging(config: HedgingConfig | None, limits: ServiceLimits, bottom: Bottom) -> Wrapper | None:
    if config is None or not config.enabled or bottom.race is None:
        return None
    pay = partial(limits.buy_retry, throttled=False)
    return partial(HedgingTransport, config=config, race=bottom.race, clock=bottom.clock, pay=pay)


def _concurrency(limits: ServiceLimits, bottom: Bottom) -> Wrapper | None:
    size = limits.limits.max_concurrent
    if not size:
        return None
    return partial(ConcurrencyTransport, size=size, max_wait=limits.limits.max_wait, bottom=bottom)


def _balancing(urls: Sequence[httpx.URL], config: BalancingConfig, bottom: Bottom) -> Wrapper | None:
    """One replica that stays one needs no balancing."""
    targets = Targets(urls, look_up=bottom.look_up, ttl=config.dns_ttl, clock=bottom.clock)
    if targets.settled and len(targets.current()) == 1:
        return None
    return partial(BalancingTransport, targets=targets, config=config, bottom=bottom)
