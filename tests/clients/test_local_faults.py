"""What goes wrong on our side says nothing of the service's health, and reaches the caller as a typed error."""

import asyncio
import gc
import io
from collections.abc import Callable

import pytest

from bridge_tasks.clients import AsyncMetadataStampingClient, CircuitState, ClientError, ServiceUnavailableError
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.bottom import Bottom, asyncio_bottom
from bridge_tasks.sandbox.control import controls_of
from bridge_tasks.sandbox.faults import Latency
from tests.running_service import RunningService


class Restless(io.BytesIO):
    """A file that has `more` bytes (fewer, where negative) when it is read than when it was measured."""

    def __init__(self, more: int) -> None:
        super().__init__(b"x" * 1000)
        self._more = more
        self._given = 0

    def read(self, size: int | None = -1) -> bytes:
        del size
        self._given += 1
        return b"x" * (1000 + self._more) if self._given == 1 else b""


@pytest.mark.parametrize("bottom", [asyncio_bottom, blocking_bottom])
@pytest.mark.parametrize("more", [1, -1])
async def test_a_file_that_changes_while_it_is_sent_is_told_as_what_it_is(
    more: int, bottom: Callable[[], Bottom], metadata: RunningService
) -> None:
    async with AsyncMetadataStampingClient(metadata.url, bottom=bottom()) as client:
        with pytest.raises(ClientError, match="changed while it was read") as raised:
            await client.generate_hash(Restless(more))

        assert not isinstance(raised.value, ServiceUnavailableError)
        assert client.get_metrics()["error_count"] == 1
        assert client.circuit_breaker.metrics.failure_count == 0
        assert (await client.generate_hash(b"steady"))["file_size_bytes"] == len(b"steady")


async def test_closing_a_client_while_calls_run_leaves_its_circuit_closed(metadata: RunningService) -> None:
    controls = controls_of(metadata.app)
    client = AsyncMetadataStampingClient(metadata.url)
    await client.generate_hash(b"finds the routes")
    controls.faults.add(Latency(seconds=5, path="/hash"))
    calls = [asyncio.create_task(client.generate_hash(b"cut short")) for _ in range(6)]
    while controls.records.counts()["in_flight"] < len(calls):  # noqa: ASYNC110 - counted in another thread
        await asyncio.sleep(0.01)

    await client.close()

    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(error) for error in ended} == {ClientError}
    assert client.circuit_breaker.state is CircuitState.CLOSED
    controls.faults.clear()
    async with client:
        assert (await client.generate_hash(b"again"))["file_size_bytes"] == len(b"again")


def test_a_client_may_be_used_in_one_event_loop_after_another(metadata: RunningService) -> None:
    client = AsyncMetadataStampingClient(metadata.url)

    async def hashed() -> int:
        size: int = (await client.generate_hash(b"hello"))["file_size_bytes"]
        await client.close()
        return size

    assert [asyncio.run(hashed()) for _ in range(3)] == [5, 5, 5]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_that_was_left_open_in_a_loop_that_ended_works_in_the_next(metadata: RunningService) -> None:
    def hashed_twice() -> list[str]:
        client = AsyncMetadataStampingClient(metadata.url)

        async def hashed() -> str:
            digest: str = (await client.generate_hash(b"hello"))["hash"]
            return digest

        return [asyncio.run(hashed()), asyncio.run(hashed())]

    first, again = hashed_twice()
    gc.collect()  # what the program left open is reported here, and not in another test

    assert again == first
