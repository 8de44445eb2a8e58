"""A RabbitMQ for all tests of this folder, and a stage on it for each: queues are deleted between two of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest

from tests.chaos.conftest import inherited
from tests.chaos.stage import Stage, staged
from tests.rabbit_server import PrivateRabbit, require_rabbit
from tests.workers import QUEUES, orchestrating

__all__ = ["inherited"]


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateRabbit]:
    require_rabbit()
    with PrivateRabbit() as started:
        yield started


@pytest.fixture
def rabbit(server: PrivateRabbit) -> Iterator[PrivateRabbit]:
    """The server, running, with nothing of an earlier test in it."""
    if not server.answers():
        server.start()
    with kombu.Connection(server.url) as connection:
        channel: Any = connection.default_channel
        for queue in QUEUES:
            channel.queue_delete(queue)
    yield server
    server.resume()


@pytest.fixture
def stage(
    rabbit: PrivateRabbit,
    tmp_path: Path,
    inherited: dict[str, str],
) -> Iterator[Stage]:
    with staged(tmp_path, inherited, BRIDGE_BROKER_URL=rabbit.url) as set_up, orchestrating(set_up.environment):
        yield set_up
