"""pytest-celery over our own nodes: processes of this machine and, in `make test-containers`, containers."""

from collections.abc import Iterator

import pytest
from celery import Celery, _state
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisTestBackend,
    RedisTestBroker,
)

from bridge_tasks.app import app
from tests.integration.container_nodes import container_nodes
from tests.integration.nodes import Nodes
from tests.integration.process_nodes import process_nodes
from tests.workers import orchestrating


@pytest.fixture(scope="module", params=["processes", pytest.param("containers", marks=pytest.mark.containers)])
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    if request.param == "containers":
        request.getfixturevalue("images")
        made = container_nodes()
    else:
        made = process_nodes(tmp_path_factory.mktemp("nodes"))
    with made as nodes:
        yield nodes


@pytest.fixture
def celery_broker_cluster(nodes: Nodes) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(RedisTestBroker(nodes.broker))


@pytest.fixture
def celery_backend_cluster(nodes: Nodes) -> CeleryBackendCluster:
    return CeleryBackendCluster(RedisTestBackend(nodes.broker))


@pytest.fixture
def celery_worker_cluster(nodes: Nodes, celery_setup_app: Celery) -> CeleryWorkerCluster:
    return CeleryWorkerCluster(CeleryTestWorker(nodes.worker, app=celery_setup_app))


@pytest.fixture
def celery_setup_app(celery_setup_config: dict[str, str]) -> Iterator[Celery]:
    """Our own application, aimed at the nodes; pytest-celery makes it the current one, which is undone."""
    before = getattr(_state._tls, "current_app", None)  # type: ignore[attr-defined] # not in the stubs
    with orchestrating({"BRIDGE_REDIS_URL": celery_setup_config["broker_url"]}):
        yield app
    _state._tls.current_app = before  # type: ignore[attr-defined] # the same


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("tests.engine")
