"""A second request beside a slow read: on both bottoms, over real sockets where it matters how the loser ends."""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from bridge_tasks import correlation, events
from bridge_tasks.errors import CircuitBreakerError
from bridge_tasks.resilience.policy.hedging import ENOUGH, HedgingConfig
from bridge_tasks.resilience.transport.balancing import MET
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.bottom import asyncio_bottom
from bridge_tasks.resilience.transport.call import EXTENSION, Call
from bridge_tasks.resilience.transport.deadline import remaining, within
from bridge_tasks.resilience.transport.hedging import HedgingTransport
from bridge_tasks.resilience.transport.racing import (
    Abandoned,
    Finish,
    Leg,
    Lifeline,
    Race,
    ThreadRace,
    race_tasks,
)
from bridge_tasks.sandbox.server import running
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock
from tests.transports.scripted import Scripted, asked
from tests.transports.unwell import unwell

CONFIG = HedgingConfig(enabled=True, delay=0.05)


class ScriptedRace:
    """Runs both legs one after the other, where the first is as slow as it is told to be."""

    def __init__(self, clock: StoppedClock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds

    async def __call__(
        self, first: Leg, second: Leg, *, after: float, good: Callable[[httpx.Response], bool]
    ) -> Finish:
        if self._seconds > after:
            self._clock.advance(after)
            try:
                return Finish(await second(), second=True)
            except (httpx.TransportError, CircuitBreakerError):
                pass
        response = await first()
        assert good(response)
        return Finish(response, second=False)


def hedging(
    inner: httpx.AsyncBaseTransport,
    clock: StoppedClock,
    *,
    slow: float = 1.0,
    config: HedgingConfig = CONFIG,
    pay: Callable[[], Awaitable[bool]] | None = None,
) -> HedgingTransport:
    return HedgingTransport(inner, config=config, race=ScriptedRace(clock, slow), clock=clock, pay=pay)


def hedges(facts: list[events.Event]) -> list[events.RequestHedged]:
    return [fact for fact in facts if isinstance(fact, events.RequestHedged)]


def test_a_slow_read_is_sent_twice_and_the_second_shares_what_the_call_has_met(
    clock: StoppedClock, facts: list[events.Event]
) -> None:
    inner = Scripted(200)
    request = asked(read=True)
    finished(hedging(inner, clock).handle_async_request(request))
    (second,) = inner.requests
    assert second is not request
    assert (second.method, second.url, second.headers) == (request.method, request.url, request.headers)
    assert second.extensions[MET] is request.extensions[MET]
    assert hedges(facts) == [events.RequestHedged("Service", "stamp", 0.05, won=True)]


def test_a_fast_read_and_every_other_call_is_sent_once(clock: StoppedClock, facts: list[events.Event]) -> None:
    inner = Scripted(200)
    for transport, request in (
        (hedging(inner, clock, slow=0.01), asked(read=True)),
        (hedging(inner, clock, slow=9.0), asked(read=False)),
    ):
        finished(transport.handle_async_request(request))
        assert inner.requests.pop() is request
    assert (inner.requests, facts) == ([], [])


def test_no_hedge_is_planned_beyond_the_deadline(clock: StoppedClock) -> None:
    inner = Scripted(200)
    with within(0.04, clock):
        finished(hedging(inner, clock).handle_async_request(asked(read=True)))
    assert len(inner.requests) == 1


def test_the_delay_follows_the_operation_s_own_pace(clock: StoppedClock, facts: list[events.Event]) -> None:
    inner = Scripted(200, clock=clock, seconds=0.3)
    transport = hedging(inner, clock, config=HedgingConfig(enabled=True))
    for _ in range(ENOUGH + 1):
        finished(transport.handle_async_request(asked(read=True)))
    (hedge,) = hedges(facts)
    assert hedge.delay == pytest.approx(0.3)


def test_without_credit_or_budget_the_first_request_decides(
    clock: StoppedClock, facts: list[events.Event]
) -> None:
    async def no() -> bool:
        return False

    inner = Scripted(200)
    transport = hedging(inner, clock, config=HedgingConfig(enabled=True, delay=0.05, share=0.01))
    for _ in range(20):
        finished(transport.handle_async_request(asked(read=True)))
    assert len(hedges(facts)) == 5
    facts.clear()
    finished(hedging(inner, clock, pay=no).handle_async_request(asked(read=True)))
    assert hedges(facts) == []


def test_a_circuit_that_refuses_the_second_leaves_the_first(clock: StoppedClock) -> None:
    inner = Scripted(CircuitBreakerError("open"), 200)
    assert finished(hedging(inner, clock).handle_async_request(asked(read=True))).status_code == 200


def test_closing_closes_what_is_wrapped(clock: StoppedClock) -> None:
    inner = Scripted(200)
    finished(hedging(inner, clock).aclose())
    assert inner.closed


# -- the two races, by one suite

AFTER = 0.05
SOON = 2.0

Answer = int | Exception
Run = Callable[[Leg, Leg], Awaitable[Finish]]


@pytest.fixture(params=["tasks", "threads"])
def race(request: pytest.FixtureRequest) -> Race:
    return race_tasks if request.param == "tasks" else ThreadRace()


@pytest.fixture
def run(race: Race) -> Run:
    async def both(first: Leg, second: Leg) -> Finish:
        racing = race(first, second, after=AFTER, good=lambda response: response.status_code == 200)
        return finished(racing) if isinstance(race, ThreadRace) else await racing

    return both


@pytest.fixture
def leg(race: Race) -> Callable[[float, Answer], Leg]:
    """Make a leg that takes some time and ends in some way."""

    def make(seconds: float, answer: Answer) -> Leg:
        async def run() -> httpx.Response:
            if isinstance(race, ThreadRace):
                time.sleep(seconds)  # noqa: ASYNC251 - this leg stands for one that blocks
            else:
                await asyncio.sleep(seconds)
            if isinstance(answer, Exception):
                raise answer
            return httpx.Response(answer)

        return run

    return make


REFUSED = httpx.ReadError("reset")


@pytest.mark.parametrize(
    ("first", "second", "status", "won"),
    [
        ((0.0, 200), (0.0, 201), 200, False),
        ((0.0, 503), (0.0, 200), 503, False),  # an end is an end: to try again is the retry's work
        ((0.5, 200), (0.0, 200), 200, True),
        ((0.3, 200), (0.0, 503), 200, False),
        ((0.3, 200), (0.0, REFUSED), 200, False),
        ((0.1, 503), (0.3, 200), 200, True),
        ((0.1, REFUSED), (0.3, 200), 200, True),
        ((0.1, 503), (0.3, REFUSED), 503, False),
        ((0.3, 500), (0.0, 503), 500, False),
    ],
    ids=str,
)
async def test_the_first_good_answer_wins_and_without_one_the_first_leg_decides(
    first: tuple[float, Answer],
    second: tuple[float, Answer],
    status: int,
    won: bool,
    run: Run,
    leg: Callable[[float, Answer], Leg],
) -> None:
    finish = await run(leg(*first), leg(*second))
    assert (finish.response.status_code, finish.second) == (status, won)


async def test_where_both_fail_the_first_error_is_raised(run: Run, leg: Callable[[float, Answer], Leg]) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await run(leg(0.1, httpx.ReadTimeout("slow")), leg(0.0, REFUSED))


async def test_both_legs_see_the_caller_s_context(run: Run, leg: Callable[[float, Answer], Leg]) -> None:
    seen: list[tuple[str | None, bool]] = []

    def seeing(inner: Leg) -> Leg:
        async def look() -> httpx.Response:
            seen.append((correlation.current(), remaining() <= 10))
            return await inner()

        return look

    with correlation.bound("job-1"), within(10):
        await run(seeing(leg(0.2, 200)), seeing(leg(0.0, 200)))
    assert seen == [("job-1", True)] * 2


def test_a_race_that_finds_no_thread_runs_its_first_leg_here() -> None:
    race, here = ThreadRace(threads=1), threading.current_thread()
    held, free = threading.Event(), threading.Event()

    async def hold() -> httpx.Response:
        held.set()
        assert free.wait(10)
        return httpx.Response(200)

    async def tell() -> httpx.Response:
        assert threading.current_thread() is here
        return httpx.Response(200)

    busy = threading.Thread(target=lambda: finished(race(hold, hold, after=0.0, good=lambda _: True)))
    busy.start()
    assert held.wait(10)
    assert not finished(race(tell, tell, after=0.0, good=lambda _: True)).second
    free.set()
    busy.join()


async def test_a_cancelled_race_leaves_no_task_behind() -> None:
    async def hang() -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    racing = asyncio.create_task(race_tasks(hang, hang, after=0.01, good=lambda _: True))
    await asyncio.sleep(0.05)
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert asyncio.all_tasks() == {asyncio.current_task()}


# -- the line by which a thread is told that it lost


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_a_socket_in_use_is_shut_and_its_user_is_told_even_if_the_answer_has_come(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """A connection whose socket was shut must never look as if it might serve another request."""
    mine, peer = pair
    line = Lifeline()
    peer.sendall(b"the whole answer")

    def receive() -> None:
        with line.held(mine):
            line.end()
            assert mine.recv(100) == b"the whole answer"

    with pytest.raises(Abandoned):
        receive()
    assert peer.recv(1) == b""


def test_a_socket_that_is_not_in_use_is_let_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, peer = pair
    line = Lifeline()
    with line.held(mine):
        pass
    line.end()
    mine.sendall(b"well")
    assert peer.recv(4) == b"well"
    with pytest.raises(Abandoned), line.held(mine):
        raise AssertionError("nothing more is done for a race that is lost")


# -- over real sockets


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(unwell) as address:
        yield address


@contextmanager
def told(inner: httpx.AsyncBaseTransport) -> Iterator[tuple[httpx.AsyncBaseTransport, list[object]]]:
    """Tell how each request below a hedge ends; the first goes to /hang, the second to /echo."""
    ends: list[object] = []

    class Telling(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            path = "/echo" if request.extensions[MET] else "/hang"
            request.extensions[MET].append(path)
            request.url = request.url.copy_with(path=path)
            try:
                response = await inner.handle_async_request(request)
            except BaseException as error:
                ends.append(type(error))
                raise
            ends.append(response.status_code)
            return response

    yield Telling(), ends


def read(url: str) -> httpx.Request:
    call = Call("Service", "validate_stamp", read=True)
    return httpx.Request("POST", url, content=b"hello", extensions={EXTENSION: call, "timeout": {"read": 30.0}})


async def test_a_task_that_lost_is_cancelled_and_its_connection_closed(url: str) -> None:
    exchange = asyncio_bottom().connect()
    with told(exchange) as (inner, ends):
        transport = HedgingTransport(inner, config=CONFIG, race=race_tasks, clock=time.monotonic)
        began = time.monotonic()
        response = await transport.handle_async_request(read(f"{url}/"))
        assert time.monotonic() - began < SOON
    assert response.content == b"hello"
    assert ends == [200, asyncio.CancelledError]
    await exchange.aclose()


def test_a_thread_that_lost_is_woken_at_once_and_its_end_says_nothing_of_the_service(url: str) -> None:
    bottom = blocking_bottom()
    exchange = bottom.connect()
    assert bottom.race is not None
    with told(exchange) as (inner, ends):
        transport = HedgingTransport(inner, config=CONFIG, race=bottom.race, clock=time.monotonic)
        for _ in range(5):
            began = time.monotonic()
            response = finished(transport.handle_async_request(read(f"{url}/")))
            assert time.monotonic() - began < SOON
            assert response.content == b"hello"
        deadline = time.monotonic() + 10
        while len(ends) < 10:
            assert time.monotonic() < deadline, "a leg outlived its race"
            time.sleep(0.01)
    assert sorted(map(str, ends)) == ["200"] * 5 + [str(Abandoned)] * 5
    finished(exchange.aclose())
