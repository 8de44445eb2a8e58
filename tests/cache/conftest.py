"""A Redis of our own for the cache's tests, and the ways to reach it."""

from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks.driver import BlockingRedis
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.sandbox.redis import PrivateRedis


@pytest.fixture(scope="session")
def cache_server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def store(cache_server: PrivateRedis) -> Iterator[redis.Redis]:
    """The server's raw contents, empty at first."""
    with connection(cache_server, seconds=5.0) as client:
        client.flushall()
        yield client


@pytest.fixture
def shared(cache_server: PrivateRedis, store: redis.Redis) -> Iterator[SharedRedis]:
    """Redis as tasks see it: quick to fail."""
    del store
    with connection(cache_server, seconds=1.0) as client:
        yield SharedRedis(BlockingRedis(client))


def connection(server: PrivateRedis, seconds: float) -> redis.Redis:
    return redis.Redis(
        port=server.port, socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0)
    )


def pytest_configure(config: pytest.Config) -> None:
    # Once for all folders that ask: the same fixtures, and so the same workers.
    config.pluginmanager.import_plugin("tests.workers")
