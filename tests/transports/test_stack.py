"""Observing, and the order in which the wrappers stand."""

import asyncio

import httpx
import pytest

from bridge_tasks import events
from bridge_tasks.resilience.circuit_breaker import CircuitBreaker
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig, CircuitState
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.transport import service_transport, stack
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.observing import ObservingTransport
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock
from tests.transports.scripted import Scripted, asked

REPLICAS = [httpx.URL("http://one:8001"), httpx.URL("https://two"), httpx.URL("http://[::1]:8003")]


def test_an_exchange_is_told_with_its_status_and_duration(clock: StoppedClock, facts: list[events.Event]) -> None:
    inner = Scripted(404, clock=clock, seconds=1.5)
    finished(ObservingTransport(inner, clock=clock).handle_async_request(asked()))
    assert facts == [events.RequestFinished("Service", "stamp", "POST", "service", 404, None, 1.5)]


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), asyncio.CancelledError()], ids=repr)
def test_an_exchange_without_an_answer_is_told_by_the_name_of_its_error(
    error: BaseException, clock: StoppedClock, facts: list[events.Event]
) -> None:
    with pytest.raises(type(error)):
        finished(ObservingTransport(Scripted(error), clock=clock).handle_async_request(asked()))
    assert facts == [
        events.RequestFinished("Service", "stamp", "POST", "service", None, type(error).__name__, 0.0)
    ]


def test_a_listener_that_fails_is_logged_and_harms_nobody(
    clock: StoppedClock, facts: list[events.Event], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: events.Event) -> None:
        raise RuntimeError("a listener's own trouble")

    stop = events.subscribe(fail)
    try:
        finished(ObservingTransport(Scripted(200), clock=clock).handle_async_request(asked()))
    finally:
        stop()
    assert len(facts) == 1
    assert "a listener failed on RequestFinished" in caplog.text


def test_wrappers_stand_in_the_order_in_which_they_are_written() -> None:
    entered: list[str] = []

    class Named(httpx.AsyncBaseTransport):
        def __init__(self, inner: httpx.AsyncBaseTransport, name: str) -> None:
            self._inner, self._name = inner, name

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            entered.append(self._name)
            return await self._inner.handle_async_request(request)

    http = stack(Scripted(200), lambda inner: Named(inner, "outer"), lambda inner: Named(inner, "inner"))
    finished(http.handle_async_request(asked()))
    assert entered == ["outer", "inner"]


def service(inner: Scripted, clock: StoppedClock, breaker: CircuitBreaker) -> httpx.AsyncBaseTransport:
    return service_transport(
        Bottom(connect=lambda: inner, sleep=clock.sleep, clock=clock, chance=lambda: 0.0),
        replicas=REPLICAS,
        deadline=60.0,
        retry=RetryConfig(attempts=3),
        breaker=breaker,
    )


def test_a_retry_meets_another_replica_and_the_breaker_sees_each_try(
    clock: StoppedClock, facts: list[events.Event]
) -> None:
    inner = Scripted(503, httpx.ReadError("reset"), 200)
    breaker = CircuitBreaker("service", clock=clock)
    finished(service(inner, clock, breaker).handle_async_request(asked("http://one:8001/stamp")))
    assert [httpx.URL(url).host for url in inner.urls] == ["one", "two", "::1"]
    assert (breaker.metrics.failure_count, breaker.metrics.success_count) == (2, 1)
    assert [type(fact).__name__ for fact in facts] == [
        "RequestFinished",
        "RetryScheduled",
        "RequestFinished",
        "RetryScheduled",
        "RequestFinished",
    ]


def test_a_circuit_that_opens_is_told_once(clock: StoppedClock, facts: list[events.Event]) -> None:
    config = CircuitBreakerConfig(failure_threshold=3, minimum_throughput=1)
    breaker = CircuitBreaker("service", config, clock=clock)
    finished(service(Scripted(500), clock, breaker).handle_async_request(asked()))
    finished(service(Scripted(500), clock, breaker).handle_async_request(asked()))
    finished(service(Scripted(500), clock, breaker).handle_async_request(asked()))
    changes = [fact for fact in facts if isinstance(fact, events.CircuitChanged)]
    assert changes == [events.CircuitChanged("service", "closed", "open", "failure_threshold failures in a row")]
    assert breaker.state is CircuitState.OPEN


def test_closing_the_outermost_closes_the_innermost(clock: StoppedClock) -> None:
    inner = Scripted(200)
    finished(service(inner, clock, CircuitBreaker("service")).aclose())
    assert inner.closed
