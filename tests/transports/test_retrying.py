"""What is tried again, how often, after how long; nothing here takes real time."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from bridge_tasks import events
from bridge_tasks.errors import CircuitBreakerError
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.deadline import within
from bridge_tasks.resilience.transport.retrying import RetryingTransport
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock
from tests.transports.scripted import Line, Scripted, asked, still_bottom

CONFIG = RetryConfig(attempts=3, initial=1.0, maximum=10.0)


def retrying(inner: Scripted, clock: StoppedClock, chance: float = 0.0) -> RetryingTransport:
    return RetryingTransport(inner, config=CONFIG, bottom=still_bottom(clock, chance))


def send(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> httpx.Response:
    return finished(transport.handle_async_request(request))


def test_a_good_answer_is_returned_at_once(clock: StoppedClock) -> None:
    inner = Scripted(200)
    assert send(retrying(inner, clock), asked()).status_code == 200
    assert (len(inner.urls), clock.naps) == (1, [])


@pytest.mark.parametrize(
    "trouble",
    [
        429,
        502,
        503,
        504,
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadTimeout("slow"),
        httpx.WriteTimeout("slow"),
        httpx.PoolTimeout("full"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.CloseError("reset"),
        httpx.RemoteProtocolError("cut"),
    ],
    ids=lambda trouble: str(trouble) if isinstance(trouble, int) else type(trouble).__name__,
)
def test_trouble_that_may_pass_is_tried_again(trouble: Line, clock: StoppedClock) -> None:
    inner = Scripted(trouble, trouble, 200)
    assert send(retrying(inner, clock), asked()).status_code == 200
    assert len(inner.urls) == 3


@pytest.mark.parametrize("status", [200, 204, 307, 400, 401, 404, 408, 409, 413, 422, 500, 501, 507])
def test_any_other_status_is_the_answer(status: int, clock: StoppedClock) -> None:
    inner = Scripted(status)
    assert send(retrying(inner, clock), asked()).status_code == status
    assert len(inner.urls) == 1


@pytest.mark.parametrize(
    "error",
    [
        httpx.LocalProtocolError("ours"),
        httpx.UnsupportedProtocol("ours"),
        httpx.ProxyError("not the service's"),
        httpx.DecodingError("too large"),
        CircuitBreakerError("open"),
        ValueError("ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_would_come_again_is_raised_at_once(error: Exception, clock: StoppedClock) -> None:
    inner = Scripted(error)
    with pytest.raises(type(error)) as raised:
        send(retrying(inner, clock), asked())
    assert raised.value is error
    assert len(inner.urls) == 1


def test_the_last_status_is_returned_when_the_tries_are_used_up(clock: StoppedClock) -> None:
    inner = Scripted(503, 502, 504)
    assert send(retrying(inner, clock), asked()).status_code == 504
    assert len(inner.urls) == CONFIG.attempts


def test_the_last_error_is_raised_when_the_tries_are_used_up(clock: StoppedClock) -> None:
    last = httpx.ReadTimeout("the third")
    inner = Scripted(503, httpx.ConnectError("the second"), last)
    with pytest.raises(httpx.ReadTimeout) as raised:
        send(retrying(inner, clock), asked())
    assert raised.value is last
    assert len(inner.urls) == CONFIG.attempts


def test_a_circuit_that_opens_between_two_tries_ends_them(clock: StoppedClock) -> None:
    inner = Scripted(503, CircuitBreakerError("open", None, None, 60.0))
    with pytest.raises(CircuitBreakerError):
        send(retrying(inner, clock), asked())
    assert len(inner.urls) == 2


@pytest.mark.parametrize(("chance", "naps"), [(0.0, [0.5, 1.0]), (0.5, [0.75, 1.5])])
def test_pauses_double_and_are_jittered_by_the_injected_chance(
    chance: float, naps: list[float], clock: StoppedClock
) -> None:
    send(retrying(Scripted(503), clock, chance), asked())
    assert clock.naps == naps


def test_a_retry_after_in_seconds_is_honoured(clock: StoppedClock) -> None:
    send(retrying(Scripted(httpx.Response(429, headers={"Retry-After": "7"}), 200), clock), asked())
    assert clock.naps == [7.0]


def test_a_retry_after_as_a_date_is_honoured(clock: StoppedClock) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    send(retrying(Scripted(httpx.Response(503, headers={"Retry-After": date}), 200), clock), asked())
    assert clock.naps == [pytest.approx(59, abs=1)]


def test_a_hint_that_does_not_fit_into_the_deadline_goes_to_the_caller_at_once(clock: StoppedClock) -> None:
    inner = Scripted(httpx.Response(503, headers={"Retry-After": "30"}))
    with within(29.0, clock):
        response = send(retrying(inner, clock), asked())
    assert response.headers["Retry-After"] == "30"
    assert (len(inner.urls), clock.naps) == (1, [])


def test_no_try_begins_after_the_deadline(clock: StoppedClock) -> None:
    inner = Scripted(httpx.ReadTimeout("slow"), clock=clock, seconds=4.0)
    with within(9.0, clock), pytest.raises(httpx.ReadTimeout):
        send(retrying(inner, clock), asked())
    # 4 s + pause 0.5 s + 4 s leave half a second, and the pause of 1 s does not fit.
    assert (len(inner.urls), clock.naps) == (2, [0.5])


@pytest.mark.parametrize(
    "trouble",
    [429, 503, httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("full")],
    ids=str,
)
def test_a_call_with_side_effects_is_repeated_when_it_surely_was_not_processed(
    trouble: Line, clock: StoppedClock
) -> None:
    inner = Scripted(trouble, 200)
    assert send(retrying(inner, clock), asked(idempotent=False)).status_code == 200
    assert len(inner.urls) == 2


@pytest.mark.parametrize("status", [502, 504])
def test_a_call_with_side_effects_is_not_repeated_behind_a_broken_gateway(
    status: int, clock: StoppedClock
) -> None:
    inner = Scripted(status)
    assert send(retrying(inner, clock), asked(idempotent=False)).status_code == status
    assert len(inner.urls) == 1


@pytest.mark.parametrize(
    "error", [httpx.ReadTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError]
)
def test_a_call_with_side_effects_is_not_repeated_when_it_may_have_arrived(
    error: type[httpx.TransportError], clock: StoppedClock
) -> None:
    inner = Scripted(error("who knows"))
    with pytest.raises(error):
        send(retrying(inner, clock), asked(idempotent=False))
    assert len(inner.urls) == 1


def test_each_retry_is_told_with_its_cause(clock: StoppedClock, facts: list[events.Event]) -> None:
    send(retrying(Scripted(503, httpx.ReadTimeout("slow"), 200), clock), asked())
    assert facts == [
        events.RetryScheduled("Service", "stamp", attempt=1, delay=0.5, cause="HTTP 503"),
        events.RetryScheduled("Service", "stamp", attempt=2, delay=1.0, cause="ReadTimeout"),
    ]


def test_the_last_try_is_not_told_as_a_retry(clock: StoppedClock, facts: list[events.Event]) -> None:
    send(retrying(Scripted(503), clock), asked())
    assert [fact.attempt for fact in facts if isinstance(fact, events.RetryScheduled)] == [1, 2]


async def test_a_cancelled_pause_ends_the_call() -> None:
    pausing = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pausing.set()
        await asyncio.sleep(seconds)

    bottom = Bottom(connect=lambda: Scripted(200), sleep=sleep)
    inner = Scripted(503)
    call = asyncio.create_task(
        RetryingTransport(
            inner, config=RetryConfig(initial=60.0, maximum=60.0), bottom=bottom
        ).handle_async_request(asked())
    )
    await pausing.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(inner.urls) == 1
