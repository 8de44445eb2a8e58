"""The nodes of pytest-celery's tests, whatever they are made of: a Redis, a worker, and both services."""

from dataclasses import dataclass

from pytest_celery import CeleryWorkerContainer, RedisContainer

from tests.chaos.stage import SHORT
from tests.workers import QUICK, Sandbox

SETTINGS = {
    **QUICK,
    **SHORT,
    "BRIDGE_METADATA__TIMEOUT": "60",  # what hangs is to hang until a test lets it go on
    "BRIDGE_METADATA__DEADLINE": "60",
}
"""Of a worker that notices within seconds that another one died."""

COMMAND = ("worker", "--pool", "prefork", "--concurrency", "2", "--without-mingle", "--without-gossip")


@dataclass(frozen=True, slots=True)
class Nodes:
    """What runs, and is run for all tests of a module; the services as tests reach them."""

    broker: RedisContainer
    worker: CeleryWorkerContainer
    sandbox: Sandbox
