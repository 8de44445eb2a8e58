"""Replicas: spread over, failed over within a call, ejected one by one, and invisible where there is only one."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

import httpx
import pytest

from bridge_tasks import events
from bridge_tasks.resilience.policy.balancing import BalancingConfig
from bridge_tasks.resilience.transport import service_transport
from bridge_tasks.resilience.transport.balancing import BalancingTransport
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.deadline import within
from bridge_tasks.resilience.transport.resolving import LookUp, Targets, Told
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock
from tests.transports.scripted import Line, asked

ONE, TWO, THREE = "http://one:8001", "https://two", "http://[::1]:8003"
REFUSED = httpx.ConnectError("refused")


class Hosts(httpx.AsyncBaseTransport):
    """Each host answers in its own way, after its own time; remembers who was asked."""

    def __init__(
        self, clock: StoppedClock, answers: Mapping[str, Line], seconds: Mapping[str, float] | None = None
    ) -> None:
        self._clock = clock
        self.answers = dict(answers)
        self._seconds = seconds or {}
        self.asked: list[str] = []
        self.requests: list[httpx.Request] = []
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        self.asked.append(host)
        self.requests.append(request)
        self._clock.advance(self._seconds.get(host, 0.01))
        line = self.answers.get(host, 200)
        if isinstance(line, BaseException):
            raise line
        return httpx.Response(line, request=request) if isinstance(line, int) else line

    async def aclose(self) -> None:
        self.closed = True


def balancing(
    inner: Hosts,
    clock: StoppedClock,
    *urls: str,
    look_up: LookUp | None = None,
    config: BalancingConfig | None = None,
    chance: Callable[[], float] = lambda: 0.0,
) -> BalancingTransport:
    config = config or BalancingConfig()
    bottom = Bottom(connect=lambda: inner, sleep=clock.sleep, clock=clock, chance=chance)
    targets = Targets([httpx.URL(url) for url in urls], look_up=look_up, ttl=config.dns_ttl, clock=clock)
    return BalancingTransport(inner, targets=targets, config=config, bottom=bottom)


def taking_turns() -> Callable[[], float]:
    """Draw numbers that favour nobody."""
    numbers = iter(range(10_000))
    return lambda: next(numbers) * 0.618 % 1


def test_one_replica_is_called_as_if_nobody_stood_between(clock: StoppedClock) -> None:
    inner = Hosts(clock, {})
    request = asked("http://one:8001/stamp?a=1")
    before = dict(request.extensions)
    finished(balancing(inner, clock, ONE).handle_async_request(request))
    assert (str(request.url), request.extensions) == ("http://one:8001/stamp?a=1", before)


def test_for_one_address_nothing_is_built_at_all(clock: StoppedClock) -> None:
    def built(*urls: str, look_up: LookUp | None = None) -> bool:
        bottom = Bottom(connect=lambda: Hosts(clock, {}), sleep=clock.sleep, clock=clock, look_up=look_up)
        transport = service_transport(
            bottom,
            replicas=[httpx.URL(url) for url in urls],
            deadline=1.0,
            retry=None,  # type: ignore[arg-type] # nothing is called here, only built
            breaker=None,  # type: ignore[arg-type] # the same
        )
        layers: list[object] = [transport]
        while hasattr(layers[-1], "_inner"):
            layers.append(layers[-1]._inner)
        return any(isinstance(layer, BalancingTransport) for layer in layers)

    def never(*_: object) -> None:
        raise AssertionError("nothing is looked up before a call is made")

    assert not built("http://127.0.0.1:8001", look_up=never)
    assert not built("http://[::1]:8001", look_up=never)
    assert not built(ONE)
    assert built(ONE, look_up=never)
    assert built(ONE, TWO)


def test_each_replica_is_called_at_its_place_under_its_own_name(clock: StoppedClock) -> None:
    inner = Hosts(clock, {"one": 503, "two": 503})
    request = asked("http://one:8001/v1/stamp?a=1")
    transport = balancing(inner, clock, ONE, TWO, THREE)
    seen = []
    for _ in range(3):
        finished(transport.handle_async_request(request))
        seen.append((str(request.url), request.headers["Host"]))
    assert seen == [
        ("http://one:8001/v1/stamp?a=1", "one:8001"),
        ("https://two/v1/stamp?a=1", "two"),
        ("http://[::1]:8003/v1/stamp?a=1", "[::1]:8003"),
    ]


def test_replicas_that_are_alike_share_the_calls(clock: StoppedClock) -> None:
    inner = Hosts(clock, {})
    transport = balancing(inner, clock, ONE, TWO, THREE, chance=taking_turns())
    for _ in range(300):
        finished(transport.handle_async_request(asked("http://one:8001/stamp")))
    assert all(share > 60 for share in Counter(inner.asked).values())
    assert len(set(inner.asked)) == 3


def test_a_slow_replica_gets_few_calls_and_a_dead_one_a_handful(clock: StoppedClock) -> None:
    inner = Hosts(clock, {"one": REFUSED}, {"one": 0.0, "two": 1.0, "::1": 0.01})
    transport = balancing(inner, clock, ONE, TWO, THREE, chance=taking_turns())
    for _ in range(3000):  # half a minute: none fails
        response = finished(transport.handle_async_request(asked("http://one:8001/stamp")))
        assert response.status_code == 200
    shares = Counter(inner.asked)
    assert shares["one"] <= 6
    assert shares["two"] <= 30
    assert shares["::1"] >= 2970


def test_a_replica_that_refuses_is_passed_over_at_once_and_costs_no_try(clock: StoppedClock) -> None:
    inner = Hosts(clock, {"one": REFUSED, "two": httpx.ConnectTimeout("slow")})
    request = asked("http://one:8001/batch", idempotent=False)
    response = finished(balancing(inner, clock, ONE, TWO, THREE).handle_async_request(request))
    assert (response.status_code, inner.asked) == (200, ["one", "two", "::1"])


def test_where_every_replica_refuses_each_is_asked_once_and_the_last_error_is_told(clock: StoppedClock) -> None:
    inner = Hosts(clock, {"one": REFUSED, "two": REFUSED})
    with pytest.raises(httpx.ConnectError):
        finished(balancing(inner, clock, ONE, TWO).handle_async_request(asked("http://one:8001/")))
    assert inner.asked == ["one", "two"]


def test_one_try_asks_three_replicas_at_most(clock: StoppedClock) -> None:
    names = [f"host-{number}" for number in range(10)]
    inner = Hosts(clock, dict.fromkeys(names, REFUSED))
    transport = balancing(inner, clock, *[f"http://{name}" for name in names])
    with pytest.raises(httpx.ConnectError):
        finished(transport.handle_async_request(asked("http://host-0/")))
    assert len(set(inner.asked)) == len(inner.asked) == 3


def test_no_failover_begins_after_the_call_s_deadline(clock: StoppedClock) -> None:
    inner = Hosts(clock, {"one": httpx.ConnectTimeout("slow")}, {"one": 5.0})
    with within(5.0, clock), pytest.raises(httpx.ConnectTimeout):
        finished(balancing(inner, clock, ONE, TWO).handle_async_request(asked("http://one:8001/")))
    assert inner.asked == ["one"]


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), httpx.ReadError("reset"), httpx.PoolTimeout("full")])
def test_what_may_have_been_sent_is_for_the_retry_to_decide(error: Exception, clock: StoppedClock) -> None:
    inner = Hosts(clock, {"one": error})
    with pytest.raises(type(error)):
        finished(balancing(inner, clock, ONE, TWO).handle_async_request(asked("http://one:8001/")))
    assert inner.asked == ["one"]


def test_five_failures_eject_a_replica_and_that_is_told_once(
    clock: StoppedClock, facts: list[events.Event]
) -> None:
    inner = Hosts(clock, {"one": 500, "two": 500})
    transport = balancing(inner, clock, ONE, TWO, chance=taking_turns())
    for _ in range(12):
        finished(transport.handle_async_request(asked("http://one:8001/")))
    told = [fact for fact in facts if isinstance(fact, events.ReplicaEjected)]
    assert len(told) == 1
    assert (told[0].service, told[0].seconds, told[0].cause) == ("Service", 30.0, "failures in a row")
    assert told[0].replica in ("one:8001", "two")
    # Then the other takes every call, although it fails as well
    inner.asked.clear()
    for _ in range(20):
        finished(transport.handle_async_request(asked("http://one:8001/")))
    assert len(set(inner.asked)) == 1


@pytest.mark.parametrize("answer", [400, 404, 422, 429, httpx.PoolTimeout("full")], ids=repr)
def test_what_is_no_fault_of_a_replica_ejects_nobody(
    answer: int | Exception, clock: StoppedClock, facts: list[events.Event]
) -> None:
    inner = Hosts(clock, {"one": answer, "two": answer})
    transport = balancing(inner, clock, ONE, TWO)
    for _ in range(20):
        with suppress(httpx.PoolTimeout):
            finished(transport.handle_async_request(asked("http://one:8001/")))
    assert facts == []


def test_a_cancelled_try_leaves_nothing_in_flight(clock: StoppedClock) -> None:
    inner = Hosts(clock, {"one": asyncio.CancelledError()}, {"one": 3.0})
    transport = balancing(inner, clock, ONE, TWO)
    with pytest.raises(asyncio.CancelledError):
        finished(transport.handle_async_request(asked("http://one:8001/")))
    assert [(one.in_flight, one.latency, one.failures) for one in transport._replicas] == [
        (0, 3.0, 0),
        (0, None, 0),
    ]


def test_a_large_body_tells_nothing_of_a_replica_s_speed(clock: StoppedClock) -> None:
    inner = Hosts(clock, {}, {"one": 60.0})
    transport = balancing(inner, clock, ONE, TWO)
    finished(transport.handle_async_request(asked("http://one:8001/", allowance=62.5)))
    assert transport._replicas[0].latency is None
    finished(transport.handle_async_request(asked("http://one:8001/", allowance=0.001)))
    assert transport._replicas[0].latency == 60.0


def test_the_addresses_of_a_name_are_replicas_that_keep_the_name(clock: StoppedClock) -> None:
    inner = Hosts(clock, {})

    def look_up(name: str, port: int, tell: Told) -> None:
        assert (name, port) == ("stamps.internal", 443)
        tell(["10.0.0.2", "10.0.0.1"])

    transport = balancing(inner, clock, "https://stamps.internal", look_up=look_up, chance=taking_turns())
    for _ in range(10):
        finished(transport.handle_async_request(asked("https://stamps.internal/stamp")))
    assert set(inner.asked) == {"10.0.0.1", "10.0.0.2"}
    assert {request.headers["Host"] for request in inner.requests} == {"stamps.internal"}
    assert {request.extensions["sni_hostname"] for request in inner.requests} == {"stamps.internal"}


def test_a_retry_from_an_address_to_another_name_leaves_no_trace_of_the_first(clock: StoppedClock) -> None:
    inner = Hosts(clock, {"10.0.0.1": 503, "10.0.0.2": 503})

    def look_up(name: str, _port: int, tell: Told) -> None:
        tell(["10.0.0.1", "10.0.0.2"] if name == "a" else ["10.0.0.9"])

    transport = balancing(inner, clock, "https://a", "https://b", look_up=look_up)
    request = asked("https://a/stamp")
    for _ in range(3):
        finished(transport.handle_async_request(request))
    assert inner.asked == ["10.0.0.1", "10.0.0.2", "b"]
    assert (str(request.url), request.headers["Host"]) == ("https://b/stamp", "b")
    assert request.extensions["sni_hostname"] is None


def test_a_retry_goes_to_the_name_where_only_one_address_is_left(clock: StoppedClock) -> None:
    inner = Hosts(clock, {"10.0.0.1": 503})
    addresses = ["10.0.0.1", "10.0.0.2"]

    def look_up(_name: str, _port: int, tell: Told) -> None:
        tell(list(addresses))

    transport = balancing(inner, clock, "https://svc", look_up=look_up)
    request = asked("https://svc/stamp")
    finished(transport.handle_async_request(request))
    del addresses[0]
    clock.advance(30.0)
    finished(transport.handle_async_request(request))
    assert inner.asked == ["10.0.0.1", "svc"]
    assert (str(request.url), request.extensions["sni_hostname"]) == ("https://svc/stamp", None)


def test_closing_closes_what_is_wrapped(clock: StoppedClock) -> None:
    inner = Hosts(clock, {})
    finished(balancing(inner, clock, ONE, TWO).aclose())
    assert inner.closed
