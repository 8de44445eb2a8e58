"""Each fault of the sandbox, met by a client on each bottom: the error, the time, the tries, the pool afterwards.

The records of the service count the tries; the time is the client's, with a generous margin for a busy machine. A
try that was given up may reach a service that got no processor meanwhile only later: the records are waited for.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from blake3 import blake3

from bridge_tasks import events
from bridge_tasks.clients import (
    AsyncMetadataStampingClient,
    AsyncOnexTreeClient,
    CircuitBreakerConfig,
    CircuitBreakerError,
    CircuitState,
    ClientError,
    ServiceUnavailableError,
)
from bridge_tasks.clients.base_client import SLOWEST_BYTES_PER_SECOND
from bridge_tasks.errors import ServiceBusy
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.transport import bottom as bottoms
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.bottom import Bottom, asyncio_bottom
from bridge_tasks.sandbox.backend import PREFIX
from bridge_tasks.sandbox.faults import (
    Disconnect,
    Drip,
    GarbageJson,
    Hang,
    HugeJson,
    Injected,
    Latency,
    Reset,
    Status,
    StatusError,
    Truncate,
    WrongContentType,
)
from bridge_tasks.sandbox.refusals import Dialect
from tests.never_suspending import finished
from tests.running_service import RunningService
from tests.workers import eventually

T = TypeVar("T")
Finish = Callable[[Coroutine[Any, Any, T]], Awaitable[T]]

TRY = 0.8
DEADLINE = 8.0
MARGIN = 1.0
TRIES = 3
RETRY = RetryConfig(attempts=TRIES, initial=0.01, maximum=0.02)
PATIENT = CircuitBreakerConfig(failure_threshold=1000)

UNAVAILABLE, REFUSED = ServiceUnavailableError, ClientError
FAULTS: list[tuple[Injected, type[ClientError], int]] = [
    (Latency(seconds=5.0, jitter=0.1), UNAVAILABLE, TRIES),
    (Hang(), UNAVAILABLE, TRIES),
    (Drip(seconds=0.02), UNAVAILABLE, TRIES),
    (Reset(), UNAVAILABLE, TRIES),
    (Disconnect(), UNAVAILABLE, TRIES),
    (Truncate(), UNAVAILABLE, TRIES),
    (Status(code=429), UNAVAILABLE, TRIES),
    (Status(code=502), UNAVAILABLE, TRIES),
    (Status(code=503), UNAVAILABLE, TRIES),
    (Status(code=504), UNAVAILABLE, TRIES),
    (Status(code=503, retry_after=0), UNAVAILABLE, TRIES),
    (Status(code=400), REFUSED, 1),
    (Status(code=404), REFUSED, 1),
    (Status(code=500), REFUSED, 1),
    (StatusError(), REFUSED, 1),
    (WrongContentType(), REFUSED, 1),
    (GarbageJson(), REFUSED, 1),
    (HugeJson(size=1 << 20), REFUSED, 1),
]


def named(value: object) -> str | None:
    if not isinstance(value, Injected):
        return None
    extra = value.model_dump(exclude_defaults=True, exclude={"kind", "body"})
    return "-".join([value.kind, *(f"{key}={part}" for key, part in extra.items())])


@pytest.fixture
def service(metadata_services: dict[Dialect, RunningService]) -> Iterator[RunningService]:
    running = metadata_services["service"]
    running.reset()
    yield running
    running.reset()


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


@pytest.fixture
async def client(service: RunningService, bottom: Bottom) -> AsyncIterator[AsyncMetadataStampingClient]:
    async with AsyncMetadataStampingClient(
        service.url + PREFIX,
        timeout=TRY,
        circuit_breaker_config=PATIENT,
        retry=RETRY,
        deadline=DEADLINE,
        bottom=bottom,
    ) as opened:
        yield opened


async def well_again(service: RunningService, client: AsyncMetadataStampingClient, finish: Finish[Any]) -> None:
    """Without the fault, one request is enough: nothing of the failure is left in the pool."""
    service.reset()
    assert (await finish(client.generate_hash(b"test")))["hash"]
    assert len(service.asked("/hash")) == 1


@pytest.mark.parametrize(("fault", "kind", "tries"), FAULTS, ids=named)
async def test_a_fault_is_a_typed_error_in_time_after_the_right_tries_and_leaves_the_pool_healthy(
    fault: Injected,
    kind: type[ClientError],
    tries: int,
    service: RunningService,
    client: AsyncMetadataStampingClient,
    finish: Finish[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bottoms, "MAX_RESPONSE_BYTES", 100_000)
    service.inject(fault)
    began = time.monotonic()
    with pytest.raises(ClientError) as raised:
        await finish(client.generate_hash(b"test"))
    assert time.monotonic() - began < DEADLINE + MARGIN
    assert type(raised.value) is kind
    assert raised.value.status == (fault.code if isinstance(fault, Status) else None)
    assert eventually(lambda: len(service.asked("/hash")) == tries)
    await well_again(service, client, finish)


@pytest.mark.parametrize(("code", "as_date", "slack"), [(429, False, 0.0), (503, True, 2.0)])
async def test_the_time_to_wait_goes_to_the_caller_when_it_does_not_fit_the_deadline(
    code: int,
    as_date: bool,
    slack: float,
    service: RunningService,
    client: AsyncMetadataStampingClient,
    finish: Finish[Any],
) -> None:
    service.inject(Status(code=code, retry_after=60, as_date=as_date))
    with pytest.raises(ServiceUnavailableError) as raised:
        await finish(client.generate_hash(b"test"))
    assert type(raised.value) is ServiceUnavailableError
    assert raised.value.retry_after == pytest.approx(60, abs=slack)
    assert len(service.asked("/hash")) == 1


async def test_a_service_that_asked_for_patience_is_asked_nothing_meanwhile(
    service: RunningService, client: AsyncMetadataStampingClient, finish: Finish[Any]
) -> None:
    service.inject(Status(code=503, retry_after=60, count=1))
    with pytest.raises(ServiceUnavailableError):
        await finish(client.generate_hash(b"test"))
    with pytest.raises(ServiceBusy) as held:
        await finish(client.get_stamp("0" * 64))
    assert 50 < (held.value.retry_after or 0) <= 66, "a minute and a tenth of it at most"
    assert len(service.asked()) == 1


async def test_a_retry_after_that_fits_is_waited_for(
    service: RunningService, client: AsyncMetadataStampingClient, finish: Finish[Any]
) -> None:
    service.inject(Status(code=429, retry_after=1, count=1))
    assert (await finish(client.generate_hash(b"test")))["hash"]
    first, second = service.asked("/hash")
    assert second.arrived_at - first.arrived_at >= 1.0


@pytest.mark.parametrize(
    "fault",
    [Hang(count=1), Reset(count=1), Disconnect(count=1), Truncate(count=1), Status(code=503, count=1)],
    ids=named,
)
async def test_a_fault_that_passes_costs_one_more_try_and_nobody_hears_of_it(
    fault: Injected, service: RunningService, client: AsyncMetadataStampingClient, finish: Finish[Any]
) -> None:
    service.inject(fault)
    assert (await finish(client.generate_hash(b"test")))["hash"]
    assert len(service.asked("/hash")) == 2
    assert client.get_metrics()["error_count"] == 0


async def test_a_service_that_refuses_connections_is_unavailable_and_found_again(
    service: RunningService,
    client: AsyncMetadataStampingClient,
    finish: Finish[Any],
    facts: list[events.Event],
) -> None:
    # Given a pooled connection, and then nobody who listens
    await finish(client.generate_hash(b"test"))
    service.refuse(0.5)
    # When a call is made, it fails in time, after every try
    facts.clear()
    began = time.monotonic()
    with pytest.raises(ServiceUnavailableError):
        await finish(client.generate_hash(b"test"))
    assert time.monotonic() - began < DEADLINE + MARGIN
    assert sum(isinstance(fact, events.RequestFinished) for fact in facts) == TRIES
    # Then it is found again as soon as it listens
    deadline = time.monotonic() + 10
    while True:
        try:
            assert (await finish(client.generate_hash(b"test")))["hash"]
            break
        except ServiceUnavailableError:
            assert time.monotonic() < deadline, "the service does not come back"
            await asyncio.sleep(
                0.02
            )  # without a pause there would be a thousand failures, and the circuit would open
    await well_again(service, client, finish)


async def test_a_deadline_cuts_a_try_that_would_last_longer(
    service: RunningService, bottom: Bottom, finish: Finish[Any]
) -> None:
    service.inject(Hang())
    async with AsyncMetadataStampingClient(
        service.url + PREFIX, timeout=30.0, deadline=1.0, bottom=bottom
    ) as client:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError, match="no answer in time"):
            await finish(client.generate_hash(b"test"))
        assert time.monotonic() - began < 1.0 + MARGIN
    assert eventually(lambda: len(service.asked("/hash")) == 1)


async def test_a_stamp_whose_answer_was_lost_is_asked_for_again_and_made_once(
    service: RunningService, client: AsyncMetadataStampingClient, finish: Finish[Any]
) -> None:
    text = f"text {uuid4()}"
    service.inject(Reset(count=1, after_work=True))
    stamped = await finish(client.create_stamp("ab" * 32, "/a", 1, {}, content=text))
    assert len(service.asked("/stamp")) == 2
    found = await finish(client.get_stamp(stamped["file_hash"]))
    assert found["stamp_id"] == stamped["stamp_id"]


async def test_an_open_file_is_sent_whole_again_after_a_failure(
    service: RunningService, client: AsyncMetadataStampingClient, finish: Finish[Any], tmp_path: Path
) -> None:
    content = b"line\n" * 40_000
    path = tmp_path / "file"
    path.write_bytes(content)
    service.inject(Reset(count=1))
    with path.open("rb") as file:
        file.read(7)
        result = await finish(client.generate_hash(file))
    assert result["hash"] == blake3(content).hexdigest()
    assert len(service.asked("/hash")) == 2


async def test_a_large_upload_to_a_service_that_hangs_is_given_up(
    service: RunningService, bottom: Bottom, finish: Finish[Any]
) -> None:  # behaviours, row 82
    service.inject(Hang())
    async with AsyncMetadataStampingClient(service.url + PREFIX, 0.1, max_retries=1, bottom=bottom) as client:
        began = time.monotonic()
        with pytest.raises(ServiceUnavailableError):
            await finish(client.generate_hash(bytes(10 << 20)))
        # What a slow but honest service would need for 10 MiB is allowed on top of the timeout.
        assert time.monotonic() - began < 0.1 + (10 << 20) / SLOWEST_BYTES_PER_SECOND + MARGIN


@pytest.mark.parametrize(
    ("fault", "tries"), [(Reset(), 1), (Status(code=504), 1), (Status(code=503), TRIES)], ids=named
)
async def test_a_batch_is_repeated_only_where_it_surely_was_not_processed(
    fault: Injected,
    tries: int,
    service: RunningService,
    client: AsyncMetadataStampingClient,
    finish: Finish[Any],
) -> None:
    service.inject(fault)
    item = {"file_hash": "ab" * 32, "file_path": "/a", "file_size": 1, "stamp_data": {}, "content": "text"}
    with pytest.raises(ServiceUnavailableError):
        await finish(client.batch_create_stamps([item]))
    assert len(service.asked("/batch")) == tries


async def test_five_timeouts_open_the_circuit_and_rejected_calls_send_nothing(
    service: RunningService, bottom: Bottom, finish: Finish[Any]
) -> None:
    service.inject(Hang())
    async with AsyncMetadataStampingClient(service.url + PREFIX, 0.5, max_retries=1, bottom=bottom) as client:
        for calls in range(1, 6):
            with pytest.raises(ServiceUnavailableError, match="no answer in time"):
                await finish(client.generate_hash(b"test"))
            assert (client.circuit_breaker.state is CircuitState.OPEN) is (calls == 5)
        for _ in range(3):
            with pytest.raises(CircuitBreakerError) as rejected:
                await finish(client.generate_hash(b"test"))
            assert 0 < (rejected.value.retry_after or 0) <= 60
    assert eventually(lambda: len(service.asked("/hash")) == 5)


@pytest.mark.parametrize("status", [400, 403, 404, 422, 429])
async def test_a_4xx_never_opens_the_circuit(
    status: int, service: RunningService, bottom: Bottom, finish: Finish[Any]
) -> None:
    service.inject(Status(code=status))
    async with AsyncMetadataStampingClient(service.url + PREFIX, max_retries=1, bottom=bottom) as client:
        for _ in range(10):
            with pytest.raises(ClientError):
                await finish(client.generate_hash(b"test"))
        assert client.circuit_breaker.state is CircuitState.CLOSED
    assert len(service.asked("/hash")) == 10


@pytest.mark.parametrize("fault", [Hang(), Reset(), Status(code=503), GarbageJson(), StatusError()], ids=named)
async def test_intelligence_falls_back_in_time_and_its_fallback_is_not_kept(
    fault: Injected, onextree: RunningService, bottom: Bottom, finish: Finish[Any]
) -> None:
    onextree.inject(fault)
    async with AsyncOnexTreeClient(onextree.url, timeout=TRY, max_retries=1, bottom=bottom) as client:
        began = time.monotonic()
        assert (await finish(client.get_intelligence("auth"))).degraded
        assert time.monotonic() - began < TRY + MARGIN
        onextree.reset()
        deadline = time.monotonic() + 10
        while (await finish(client.get_intelligence("auth"))).degraded:  # for minutes, if it had been kept
            assert time.monotonic() < deadline, "the fallback was kept"
