"""Several real services as one: a dead, a slow and a well one, on both bottoms; and names over real sockets."""

import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from bridge_tasks import events
from bridge_tasks.clients import AsyncMetadataStampingClient, CircuitState, ServiceUnavailableError
from bridge_tasks.resilience.policy.hedging import HedgingConfig
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.bottom import Bottom, asyncio_bottom
from bridge_tasks.resilience.transport.resolving import Told
from bridge_tasks.sandbox import metadata_service
from bridge_tasks.sandbox.backend import PREFIX
from bridge_tasks.sandbox.faults import Latency, Reset
from tests.never_suspending import finished
from tests.running_service import RunningService, serving

T = TypeVar("T")
Finish = Callable[[Coroutine[Any, Any, T]], Awaitable[T]]

SLOW = 1.0
RETRY = RetryConfig(attempts=3, initial=0.001, maximum=0.01)


@pytest.fixture(scope="module")
def services() -> Iterator[list[RunningService]]:
    with (
        serving(metadata_service.create_app("service"), "service") as first,
        serving(metadata_service.create_app("service"), "service") as second,
        serving(metadata_service.create_app("service"), "service") as third,
    ):
        yield [first, second, third]


@pytest.fixture
def replicas(services: list[RunningService]) -> Iterator[list[RunningService]]:
    for service in services:
        service.reset()
    yield services
    for service in services:
        service.reset()


@pytest.fixture(params=["asyncio", "blocking"])
def bottom(request: pytest.FixtureRequest) -> Bottom:
    return asyncio_bottom() if request.param == "asyncio" else blocking_bottom()


@pytest.fixture
def finish(request: pytest.FixtureRequest) -> Finish[Any]:
    """Run a call to its end in the way of its bottom: awaited, or in one push that must not suspend."""
    blocking = request.node.callspec.params["bottom"] == "blocking"

    async def run(call: Coroutine[Any, Any, T]) -> T:
        return finished(call) if blocking else await call

    return run


@contextmanager
def nobody_listens() -> Iterator[str]:
    """Hold a port on which connections are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def client(bottom: Bottom, *urls: str, **options: Any) -> AsyncMetadataStampingClient:
    first, *others = [url + PREFIX for url in urls]
    return AsyncMetadataStampingClient(first, timeout=5.0, replicas=others, retry=RETRY, bottom=bottom, **options)


def shares(replicas: list[RunningService]) -> list[int]:
    return [len(service.asked("/hash")) for service in replicas]


async def test_of_a_dead_a_slow_and_a_well_replica_the_well_one_does_the_work(
    replicas: list[RunningService], bottom: Bottom, finish: Finish[Any]
) -> None:
    dead, slow, _ = replicas
    dead.inject(Reset())
    slow.inject(Latency(seconds=SLOW))
    async with client(bottom, *[service.url for service in replicas]) as calling:
        for _ in range(100):
            assert (await finish(calling.generate_hash(b"test")))["hash"]
        assert calling.circuit_breaker.state is CircuitState.CLOSED
        assert calling.get_metrics()["error_count"] == 0
    to_dead, to_slow, to_well = shares(replicas)
    # A handful each; on a quiet machine, one or two (the exact numbers are in the tests on a stopped clock).
    assert to_dead <= 10
    assert to_slow <= 10
    assert to_well >= 80


async def test_a_replica_that_refuses_connections_costs_no_retry(
    replicas: list[RunningService], bottom: Bottom, finish: Finish[Any], facts: list[events.Event]
) -> None:
    with nobody_listens() as dead:
        async with client(bottom, dead, replicas[0].url, replicas[1].url) as calling:
            for _ in range(50):
                assert (await finish(calling.generate_hash(b"test")))["hash"]
            assert calling.circuit_breaker.metrics.failure_count == 0
    refused = [fact for fact in facts if isinstance(fact, events.RequestFinished) and fact.error]
    assert 1 <= len(refused) <= 5
    assert not [fact for fact in facts if isinstance(fact, events.RetryScheduled)]
    assert min(shares(replicas)[:2]) > 0


async def test_where_all_replicas_refuse_the_service_is_unavailable(bottom: Bottom, finish: Finish[Any]) -> None:
    with nobody_listens() as one, nobody_listens() as other:
        async with client(bottom, one, other) as calling:
            began = time.monotonic()
            with pytest.raises(ServiceUnavailableError, match="unreachable"):
                await finish(calling.generate_hash(b"test"))
            assert time.monotonic() - began < 2.0


async def test_a_slow_read_is_answered_by_another_replica_and_the_slow_one_is_let_go(
    replicas: list[RunningService], bottom: Bottom, finish: Finish[Any], facts: list[events.Event]
) -> None:
    slow, well, _ = replicas
    slow.inject(Latency(seconds=20.0))
    certain = replace(bottom, chance=lambda: 0.0)  # of two unknown ones, the first
    certainly = HedgingConfig(enabled=True, delay=0.5)  # longer than one that is well takes, on a busy machine
    async with client(certain, slow.url, well.url, hedging=certainly) as calling:
        began = time.monotonic()
        assert await finish(calling.validate_stamp("no stamp here"))
        assert time.monotonic() - began < 2.0
        assert calling.circuit_breaker.metrics.failure_count == 0
        # Then the slow one is known for what it is
        for _ in range(10):
            await finish(calling.validate_stamp("no stamp here"))
    assert len(slow.asked("/validate")) == 1
    assert [fact.won for fact in facts if isinstance(fact, events.RequestHedged)] == [True]


async def test_a_stamp_is_never_hedged(
    replicas: list[RunningService], bottom: Bottom, finish: Finish[Any], facts: list[events.Event]
) -> None:
    replicas[0].inject(Latency(seconds=0.2))
    async with client(bottom, replicas[0].url, hedging=HedgingConfig(enabled=True, delay=0.01)) as calling:
        await finish(calling.create_stamp("ab" * 32, "/a", 1, {}, content="text"))
        await finish(calling.generate_hash(b"test"))
    assert not [fact for fact in facts if isinstance(fact, events.RequestHedged)]


async def test_of_a_name_s_addresses_the_one_that_answers_is_used_and_no_call_fails(
    replicas: list[RunningService], bottom: Bottom, finish: Finish[Any], facts: list[events.Event]
) -> None:
    def look_up(_name: str, _port: int, tell: Told) -> None:
        tell(["127.0.0.1", "127.0.0.2"])  # the service listens on the first only

    port = replicas[0].url.rsplit(":", 1)[1]
    async with client(replace(bottom, look_up=look_up), f"http://stamps.internal:{port}") as calling:
        for _ in range(30):
            assert (await finish(calling.generate_hash(b"test")))["hash"]
        assert calling.get_metrics()["error_count"] == 0
    assert shares(replicas)[0] == 30
    hosts = {fact.host for fact in facts if isinstance(fact, events.RequestFinished)}
    assert hosts == {"127.0.0.1", "127.0.0.2"}


async def test_tls_asks_for_the_name_where_the_connection_goes_to_an_address(
    bottom: Bottom, finish: Finish[Any]
) -> None:
    def look_up(_name: str, _port: int, tell: Told) -> None:
        tell(["127.0.0.1", "127.0.0.3"])

    with greeted() as (port, names):
        async with client(replace(bottom, look_up=look_up), f"https://stamps.internal:{port}") as calling:
            with pytest.raises(ServiceUnavailableError):  # there is no certificate: the greeting is all we want
                await finish(calling.generate_hash(b"test"))
    assert set(names) == {"stamps.internal"}


@contextmanager
def greeted() -> Iterator[tuple[int, list[str | None]]]:
    """Listen on a port, and note the server name of each TLS greeting."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def note(_: object, name: str | None, __: object) -> None:
        names.append(name)

    context.sni_callback = note
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):  # no certificate, as planned
                    context.wrap_socket(connection, server_side=True)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], names
        listener.shutdown(socket.SHUT_RDWR)
