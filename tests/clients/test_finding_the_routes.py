"""Whether the routes are under the prefix is asked once; only a router's own 404 is believed and remembered."""

import pytest

from bridge_tasks.clients import AsyncMetadataStampingClient, ServiceUnavailableError
from bridge_tasks.sandbox.control import controls_of
from bridge_tasks.sandbox.faults import Status
from tests.running_service import RunningService


async def test_a_stray_404_is_an_outage_and_the_next_call_asks_again(metadata: RunningService) -> None:
    controls_of(metadata.app).faults.add(Status(code=404, count=1, body={"detail": "upstream warming up"}))

    async with AsyncMetadataStampingClient(metadata.url) as client:
        with pytest.raises(ServiceUnavailableError, match="404 where its routes should be"):
            await client.generate_hash(b"first")
        assert (await client.generate_hash(b"second"))["file_size_bytes"] == len(b"second")


async def test_it_is_asked_once_for_many_calls(metadata: RunningService) -> None:
    async with AsyncMetadataStampingClient(metadata.url) as client:
        for _ in range(3):
            await client.generate_hash(b"x")

    assert len([record for record in metadata.asked() if record.path.endswith("/health")]) == 1
