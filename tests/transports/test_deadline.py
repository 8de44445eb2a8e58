"""The time a piece of work has in all."""

import math

import httpx
import pytest

from bridge_tasks.resilience.transport.bottom import CONNECT_SECONDS, try_timeouts
from bridge_tasks.resilience.transport.deadline import DeadlineTransport, remaining, within
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock
from tests.transports.scripted import Scripted, asked


def test_without_a_limit_there_is_all_the_time_in_the_world(clock: StoppedClock) -> None:
    assert remaining(clock) == math.inf


def test_a_limit_runs_down_to_zero_and_no_further(clock: StoppedClock) -> None:
    with within(10.0, clock):
        clock.advance(4.0)
        assert remaining(clock) == 6.0
        clock.advance(60.0)
        assert remaining(clock) == 0.0


@pytest.mark.parametrize(("inner", "left"), [(5.0, 5.0), (60.0, 10.0)])
def test_a_nested_limit_only_ever_shortens(inner: float, left: float, clock: StoppedClock) -> None:
    with within(10.0, clock):
        with within(inner, clock):
            assert remaining(clock) == left
        assert remaining(clock) == 10.0


def test_a_limit_ends_with_its_block_even_by_an_error(clock: StoppedClock) -> None:
    with pytest.raises(KeyError), within(1.0, clock):
        raise KeyError
    assert remaining(clock) == math.inf


def test_a_call_sees_what_is_left_and_its_caller_does_not(clock: StoppedClock) -> None:
    inner = Scripted(200)
    seen: list[float] = []
    inner.on_request = lambda: seen.append(remaining(clock))
    finished(DeadlineTransport(inner, seconds=7.0, clock=clock).handle_async_request(asked()))
    assert seen == [7.0]
    assert remaining(clock) == math.inf


def test_a_call_of_work_without_time_is_not_sent(clock: StoppedClock) -> None:
    inner = Scripted(200)
    transport = DeadlineTransport(inner, seconds=60.0, clock=clock)
    with within(3.0, clock):
        clock.advance(3.0)
        with pytest.raises(httpx.ConnectTimeout, match="no time left"):
            finished(transport.handle_async_request(asked()))
    assert inner.urls == []


@pytest.mark.parametrize(("own", "left", "read"), [(30.0, 100.0, 30.0), (30.0, 2.0, 2.0), (None, 100.0, 5.0)])
def test_a_try_gets_its_own_time_or_what_is_left(
    own: float | None, left: float, read: float, clock: StoppedClock
) -> None:
    request = httpx.Request("GET", "http://service/", extensions={"timeout": {"read": own}} if own else {})
    with within(left, clock):
        timeouts = try_timeouts(request, clock)
    assert (timeouts["read"], timeouts["write"]) == (read, read)
    assert timeouts["connect"] == timeouts["pool"] == min(CONNECT_SECONDS, read * 0.9)


def test_a_call_that_moves_a_large_body_gets_its_allowance_on_top(clock: StoppedClock) -> None:
    inner = Scripted(200)
    seen: list[float] = []
    inner.on_request = lambda: seen.append(try_timeouts(inner.requests[-1], clock)["read"])
    for own, deadline in ((5.0, 60.0), (60.0, 7.0)):
        request = asked(allowance=3.0)
        request.extensions["timeout"] = {"read": own}
        finished(DeadlineTransport(inner, seconds=deadline, clock=clock).handle_async_request(request))
    assert seen == [5.0 + 3.0, 7.0 + 3.0]
