"""A worker's hands without the worker: both services in each dialect, a ledger in Redis, and files to stamp."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge_tasks.clients import AsyncMetadataStampingClient, AsyncOnexTreeClient, CircuitBreakerConfig
from bridge_tasks.content import ContentStore
from bridge_tasks.ledger.run_records import RunOptions
from bridge_tasks.operations import Services
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.sandbox.metadata_service import create_app
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.sandbox.refusals import Dialect
from bridge_tasks.settings import ContentSettings
from tests.bulk.bench import Bench
from tests.ledger.run_desk import RunDesk
from tests.never_suspending import finished
from tests.operations.world import AT_ONCE
from tests.running_service import RunningService, serving


@pytest.fixture(scope="session")
def bulk_server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture(scope="module", params=["service", "guide"])
def stamping(request: pytest.FixtureRequest) -> Iterator[RunningService]:
    with serving(create_app(request.param), request.param) as service:
        yield service


@pytest.fixture
def services(
    stamping: RunningService, onextree_services: dict[Dialect, RunningService], tmp_path: Path
) -> Iterator[Services]:
    stamping.reset()
    tree = onextree_services["service"]
    tree.reset()
    bottom = blocking_bottom()
    patient = CircuitBreakerConfig(failure_threshold=1000)
    metadata = AsyncMetadataStampingClient(
        stamping.url, timeout=5.0, retry=AT_ONCE, circuit_breaker_config=patient, bottom=bottom
    )
    onextree = AsyncOnexTreeClient(tree.url, timeout=5.0, retry=AT_ONCE, enable_cache=False, bottom=bottom)
    content = ContentStore(ContentSettings(roots=(str(tmp_path),)), NoRedis(), bottom)
    finished(metadata.needs_content())  # where the routes are is known by now, as in any worker at work
    stamping.controls.records.clear()
    yield Services(metadata, onextree, content)
    _wait_for_calls_that_were_given_up()  # or one that only now begins would open a closed client again
    for opened in (metadata, onextree, content):
        finished(opened.close())
    stamping.reset()


def _wait_for_calls_that_were_given_up() -> None:
    """Wait for those that a cancelled chunk left under way (see `overlapping`)."""
    for thread in threading.enumerate():
        if thread.name.startswith("bridge-overlapping"):
            thread.join(10)
            assert not thread.is_alive(), "every call has an end"


@pytest.fixture
def bench(
    services: Services,
    stamping: RunningService,
    onextree_services: dict[Dialect, RunningService],
    bulk_server: PrivateRedis,
    tmp_path: Path,
) -> Iterator[Callable[..., Bench]]:
    with redis.Redis.from_url(bulk_server.url) as client:

        def make(**options: Any) -> Bench:
            desk = RunDesk(client, options=RunOptions(**{"namespace": "docs", **options}))
            return Bench(services, desk, stamping, onextree_services["service"], tmp_path)

        yield make


class NoRedis:
    async def execute_command(self, *arguments: Any) -> Any:
        raise AssertionError(f"Redis was asked {arguments}")
