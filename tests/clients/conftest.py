"""Open clients of the running services, one per dialect."""

from collections.abc import AsyncIterator

import pytest

from bridge_tasks.clients import AsyncMetadataStampingClient, AsyncOnexTreeClient
from tests.running_service import RunningService


@pytest.fixture
async def client(metadata: RunningService) -> AsyncIterator[AsyncMetadataStampingClient]:
    async with AsyncMetadataStampingClient(metadata.url, timeout=10.0) as opened:
        yield opened


@pytest.fixture
async def tree_client(onextree: RunningService) -> AsyncIterator[AsyncOnexTreeClient]:
    async with AsyncOnexTreeClient(onextree.url, timeout=10.0) as opened:
        yield opened
