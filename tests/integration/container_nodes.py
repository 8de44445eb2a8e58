"""Nodes that are containers of our own images, which `make test-containers` has built."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from uuid import uuid4

import docker
import httpx
from docker.models.containers import Container
from pytest_celery import CeleryWorkerContainer, RedisContainer

from tests.integration.nodes import COMMAND, SETTINGS, Nodes
from tests.workers import Sandbox, eventually

REDIS = "redis:7-bookworm"
WORKER, SERVICES = "bridge-tasks", "bridge-tasks-sandbox"
HERE = "127.0.0.1"
LOCKED = {"read_only": True, "tmpfs": {"/tmp": ""}, "cap_drop": ["ALL"]}  # noqa: S108 - of a container


class _PublishedRedis(RedisContainer):  # type: ignore[misc] # it has no types
    """Asked for where it is published, also by tests that are themselves in a container."""

    @property
    def port(self) -> int:
        return int(self.ports["6379/tcp"][0])


@contextmanager
def container_nodes() -> Iterator[Nodes]:
    """Run the nodes for the length of a `with` block, in a network of their own."""
    with ExitStack() as running:
        client = running.enter_context(closing(docker.from_env()))
        network = client.networks.create(f"bridge-nodes-{uuid4().hex[:8]}")
        running.callback(network.remove)

        def run(image: str, name: str, **options: object) -> Container:
            container = client.containers.run(
                image, detach=True, network=network.name, hostname=name, name=f"{network.name}-{name}", **options
            )
            running.callback(container.remove, force=True, v=True)
            return container

        server = run(
            REDIS,
            "redis",
            command=RedisContainer.command("--appendonly", "yes", "--bind", "0.0.0.0"),  # noqa: S104 - in its network
            ports={"6379/tcp": (HERE, None)},
        )
        services = run(SERVICES, "services", ports={"8053/tcp": (HERE, None), "8058/tcp": (HERE, None)}, **LOCKED)
        worker = run(
            WORKER,
            "worker",
            command=["celery", "-A", "bridge_tasks.app", *COMMAND],
            environment={
                **SETTINGS,
                "BRIDGE_CHECK_ACCEPT": "redis-open,redis-no-password",  # its network is this test's alone
                "BRIDGE_REDIS_URL": f"redis://{server.name}:6379/0",
                "BRIDGE_METADATA__URLS": f"http://{services.name}:8053",
                "BRIDGE_ONEXTREE__URLS": f"http://{services.name}:8058",
            },
            **LOCKED,
        )
        sandbox = Sandbox(
            _address(services, 8053), _address(services, 8058), running.enter_context(httpx.Client())
        )
        broker = _PublishedRedis(server)
        assert eventually(broker.ready), broker.logs()
        yield Nodes(broker, CeleryWorkerContainer(worker), sandbox)


def _address(services: Container, port: int) -> str:
    """Where one of the two services is for this machine, once it answers."""

    def answering() -> str | None:
        services.reload()
        published = services.attrs["NetworkSettings"]["Ports"].get(f"{port}/tcp")
        url = f"http://{HERE}:{published[0]['HostPort']}" if published else ""
        try:
            return url if url and httpx.get(f"{url}/health").is_success else None
        except httpx.TransportError:
            return None

    found = eventually(answering)
    assert found, services.logs()
    return found
