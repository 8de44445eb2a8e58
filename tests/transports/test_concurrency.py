"""Only so many calls at a time: who waits, who is woken, and that no place is ever lost."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from bridge_tasks import events
from bridge_tasks.errors import RateLimited
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.concurrency import ConcurrencyTransport, Slots
from bridge_tasks.resilience.transport.deadline import within
from bridge_tasks.resilience.transport.waking import LoopSignal, ThreadSignal
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock
from tests.transports.scripted import Scripted, asked

PATIENCE = 20.0
"""Seconds; only a test that fails waits that long."""


class Crowded(httpx.AsyncBaseTransport):
    """Counts who is inside at a time; each stays until the test lets it go, where it says so."""

    def __init__(self) -> None:
        self.inside = self.most = self.served = 0
        self._lock = threading.Lock()
        self.gate: Callable[[], object] = lambda: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            waiting = self.gate()
            if asyncio.isfuture(waiting) or asyncio.iscoroutine(waiting):
                await waiting
        finally:
            with self._lock:
                self.inside -= 1
                self.served += 1
        return httpx.Response(200, request=request)


def test_threads_stand_in_line_and_all_are_served() -> None:
    crowd = Crowded()
    meet = threading.Barrier(4)
    crowd.gate = lambda: meet.wait(PATIENCE)  # a call ends only when four are inside together
    bottom = Bottom(connect=lambda: crowd, sleep=StoppedClock().sleep, signal=ThreadSignal)
    transport = ConcurrencyTransport(crowd, size=4, max_wait=PATIENCE, bottom=bottom)

    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda _: finished(transport.handle_async_request(asked())), range(64)))

    assert [response.status_code for response in done] == [200] * 64
    assert (crowd.most, crowd.inside) == (4, 0)


async def test_coroutines_stand_in_line_and_are_served_in_order_of_arrival() -> None:
    slots, order = Slots(1, LoopSignal), list[int]()
    assert await slots.take(0)

    async def arrive(number: int) -> None:
        assert await slots.take(PATIENCE)
        order.append(number)
        slots.give()

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(arrive(number))
        await asyncio.sleep(0)
        assert order == []
        slots.give()
    assert order == list(range(10))


async def test_who_waits_too_long_is_told_that_nothing_was_sent(facts: list[events.Event]) -> None:
    crowd, free = Crowded(), asyncio.Event()
    crowd.gate = free.wait
    bottom = Bottom(connect=lambda: crowd, sleep=asyncio.sleep)
    transport = ConcurrencyTransport(crowd, size=1, max_wait=0.01, bottom=bottom)
    first = asyncio.create_task(transport.handle_async_request(asked()))
    await asyncio.sleep(0)

    with pytest.raises(RateLimited) as limited:
        await transport.handle_async_request(asked())

    assert limited.value.unsent
    assert limited.value.retry_after == 0.01
    assert facts == [events.CallHeldBack("Service", "stamp", 0.01, "concurrency limit")]
    free.set()
    assert (await first).status_code == 200
    assert (await transport.handle_async_request(asked())).status_code == 200
    assert crowd.most == 1


async def test_nobody_waits_past_a_deadline() -> None:
    slots = Slots(1, LoopSignal)
    assert await slots.take(0)
    assert not await slots.take(0)
    bottom = Bottom(connect=lambda: Scripted(200), sleep=asyncio.sleep)
    crowd, never = Crowded(), asyncio.Event()
    crowd.gate = never.wait
    transport = ConcurrencyTransport(crowd, size=1, max_wait=PATIENCE, bottom=bottom)
    first = asyncio.create_task(transport.handle_async_request(asked()))
    await asyncio.sleep(0)
    with within(0.01), pytest.raises(RateLimited):
        await transport.handle_async_request(asked())
    never.set()
    await first


async def test_a_waiter_that_is_cancelled_passes_on_the_place_it_had_just_been_given() -> None:
    slots = Slots(1, LoopSignal)
    assert await slots.take(0)
    first, second = (asyncio.create_task(slots.take(PATIENCE)) for _ in range(2))
    await asyncio.sleep(0)
    slots.give()
    first.cancel()
    assert await second
    slots.give()
    assert await slots.take(0), "the place is free again"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_waiter_that_is_cancelled_while_it_waits_leaves_the_line() -> None:
    slots = Slots(1, LoopSignal)
    assert await slots.take(0)
    waiter = asyncio.create_task(slots.take(PATIENCE))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])
    slots.give()
    assert await slots.take(0)


def test_a_place_is_not_handed_to_a_loop_that_is_closed() -> None:
    slots = Slots(1, LoopSignal)

    async def left_waiting() -> None:
        assert await slots.take(0)
        # Never finished, never cancelled: its loop just ends, as when a program closes one it no longer needs.
        leave.append(slots.take(PATIENCE))
        leave[0].send(None)

    leave: list[Coroutine[Any, Any, bool]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(left_waiting())
    loop.close()
    slots.give()
    assert finished(slots.take(0))
    leave.clear()  # the garbage collector ends what was left behind
    assert not finished(slots.take(0)), "it had no place to give back"


@pytest.mark.parametrize("trouble", [httpx.ReadTimeout("slow"), asyncio.CancelledError()], ids=repr)
def test_a_call_that_fails_gives_its_place_back(trouble: BaseException, clock: StoppedClock) -> None:
    bottom = Bottom(connect=lambda: Scripted(200), sleep=clock.sleep, clock=clock, signal=ThreadSignal)
    transport = ConcurrencyTransport(Scripted(trouble, 200), size=1, max_wait=0, bottom=bottom)
    with pytest.raises(type(trouble)):
        finished(transport.handle_async_request(asked()))
    assert finished(transport.handle_async_request(asked())).status_code == 200


def test_closing_it_closes_what_it_wraps(clock: StoppedClock) -> None:
    inner = Scripted(200)
    bottom = Bottom(connect=lambda: inner, sleep=clock.sleep)
    finished(ConcurrencyTransport(inner, size=1, max_wait=0, bottom=bottom).aclose())
    assert inner.closed
