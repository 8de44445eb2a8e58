"""What each try tells the circuit breaker, and that an open circuit sends nothing."""

import asyncio
from contextlib import suppress

import httpx
import pytest

from bridge_tasks.errors import CircuitBreakerError
from bridge_tasks.resilience.circuit_breaker import CircuitBreaker
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig, CircuitState, Outcome
from bridge_tasks.resilience.transport.breaking import BreakingTransport
from bridge_tasks.resilience.transport.call import Call, verdict
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock
from tests.transports.scripted import Line, Scripted, asked

CONFIG = CircuitBreakerConfig(
    failure_threshold=2, minimum_throughput=1, half_open_max_calls=1, success_threshold=1
)


@pytest.fixture
def breaker(clock: StoppedClock) -> CircuitBreaker:
    return CircuitBreaker("service", CONFIG, clock=clock)


def send(inner: Scripted, breaker: CircuitBreaker, clock: StoppedClock) -> None:
    transport = BreakingTransport(inner, breaker=breaker, clock=clock)
    with suppress(httpx.HTTPError):
        finished(transport.handle_async_request(asked()))


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, Outcome.SUCCESS) for status in (200, 201, 204, 307, 400, 401, 403, 404, 409, 413, 422)),
        *((status, Outcome.NEUTRAL) for status in (408, 429)),
        *((status, Outcome.FAILURE) for status in (500, 501, 502, 503, 504, 507)),
    ],
)
def test_only_a_5xx_speaks_against_the_service(status: int, outcome: Outcome) -> None:
    assert verdict(Call(), httpx.Response(status)) is outcome


def test_a_status_that_the_call_expects_speaks_for_the_service() -> None:
    assert verdict(Call(expected=frozenset({500})), httpx.Response(500)) is Outcome.SUCCESS


@pytest.mark.parametrize(
    ("line", "failures", "successes"),
    [
        (200, 0, 1),
        (404, 0, 1),
        (429, 0, 0),
        (500, 1, 0),
        (httpx.ConnectError("refused"), 1, 0),
        (httpx.ReadTimeout("slow"), 1, 0),
        (httpx.ReadError("reset"), 1, 0),
        (httpx.RemoteProtocolError("cut"), 1, 0),
        (httpx.PoolTimeout("our own pool is full"), 0, 0),
        (httpx.LocalProtocolError("ours"), 0, 0),
        (httpx.DecodingError("too large"), 0, 0),
    ],
    ids=str,
)
def test_each_try_is_told_to_the_breaker(
    line: Line, failures: int, successes: int, breaker: CircuitBreaker, clock: StoppedClock
) -> None:
    send(Scripted(line), breaker, clock)
    assert (breaker.metrics.failure_count, breaker.metrics.success_count) == (failures, successes)


def test_an_open_circuit_sends_nothing_and_says_when_to_come_back(
    breaker: CircuitBreaker, clock: StoppedClock
) -> None:
    inner = Scripted(500)
    send(inner, breaker, clock)
    send(inner, breaker, clock)
    with pytest.raises(CircuitBreakerError) as refused:
        send(inner, breaker, clock)
    assert refused.value.retry_after == CONFIG.recovery_timeout
    assert len(inner.urls) == 2


@pytest.mark.parametrize("line", [429, httpx.LocalProtocolError("ours"), asyncio.CancelledError()], ids=repr)
def test_a_probe_that_says_nothing_frees_its_place(
    line: Line, breaker: CircuitBreaker, clock: StoppedClock
) -> None:
    # Given a half-open circuit with one place
    finished(breaker.force_open())
    clock.advance(CONFIG.recovery_timeout)
    # When the probe in it ends without a verdict
    if isinstance(line, asyncio.CancelledError):
        with pytest.raises(asyncio.CancelledError):
            send(Scripted(line), breaker, clock)
    else:
        send(Scripted(line), breaker, clock)
    # Then the next one may go, and closes the circuit
    assert breaker.state is CircuitState.HALF_OPEN
    send(Scripted(200), breaker, clock)
    assert breaker.get_metrics().state is CircuitState.CLOSED


def test_the_breaker_learns_how_long_a_good_try_took(breaker: CircuitBreaker, clock: StoppedClock) -> None:
    send(Scripted(200, clock=clock, seconds=6.0), breaker, clock)
    assert breaker.metrics.response_times == [6.0]
    assert breaker.metrics.slow_calls == 1
