"""Both services in both dialects, each with and without idempotency keys, and what the operations need of them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from bridge_tasks.clients import AsyncMetadataStampingClient, AsyncOnexTreeClient
from bridge_tasks.content import ContentStore
from bridge_tasks.operations import Services
from bridge_tasks.resilience.transport.bottom import asyncio_bottom
from bridge_tasks.sandbox.metadata_service import create_app
from bridge_tasks.sandbox.refusals import Dialect
from bridge_tasks.settings import ContentSettings
from tests.operations.world import AT_ONCE, World
from tests.running_service import RunningService, serving

KINDS: list[tuple[Dialect, bool]] = [("service", True), ("service", False), ("guide", True), ("guide", False)]


class NoRedis:
    async def execute_command(self, *arguments: Any) -> Any:
        raise AssertionError(f"Redis was asked {arguments}")


@pytest.fixture(
    scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}, keys {'heeded' if kind[1] else 'unknown'}"
)
def kind(request: pytest.FixtureRequest) -> Iterator[tuple[RunningService, bool]]:
    dialect, heeds_keys = request.param
    with serving(create_app(dialect, heeds_keys=heeds_keys), dialect) as service:
        yield service, heeds_keys


@pytest.fixture
async def world(
    kind: tuple[RunningService, bool], onextree_services: dict[Dialect, RunningService]
) -> AsyncIterator[World]:
    service, heeds_keys = kind
    service.reset()
    tree = onextree_services["service"]
    tree.reset()
    async with (
        AsyncMetadataStampingClient(service.url, timeout=5.0, retry=AT_ONCE) as metadata,
        AsyncOnexTreeClient(tree.url, timeout=5.0, enable_cache=False) as onextree,
    ):
        content = ContentStore(ContentSettings(), NoRedis(), asyncio_bottom())
        await metadata.needs_content()  # where the routes are is known by now, as in any worker at work
        yield World(Services(metadata, onextree, content), service, heeds_keys)
        await content.close()
    service.reset()
