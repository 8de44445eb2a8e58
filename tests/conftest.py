"""What every test may ask for. Hypothesis runs the same examples each time: a red test is red for everybody.

The sandbox services run in threads of this process, once per session and dialect, and are set back for each test.
"""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from bridge_tasks import events
from bridge_tasks.sandbox import metadata_service, onextree_service
from bridge_tasks.sandbox.refusals import Dialect
from tests.running_service import RunningService, serving
from tests.stopped_clock import StoppedClock

# Plugins of some folders, which other folders import as they are: asserts in them explain themselves either way.
pytest.register_assert_rewrite("tests.workers", "tests.engine")

settings.register_profile("house", deadline=None, derandomize=True, max_examples=100)
settings.register_profile("soak", deadline=None, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))

# A suite that a script runs in the background has SIGINT ignored, and so would everything it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

TOGETHER = {"cli": "stack", "doors": "doors", "rabbit": "rabbit", "tasks": "workers", "workflows": "workers"}
"""Folders whose tests share a stack or workers: in one of pytest's processes, so that there is one of them."""


FLEET = {"benchmarks", "chaos", "doors", "fleet", "integration", "rabbit"}
"""Folders whose tests run many processes or other servers, kill them, or wait for leases to end: `test-fleet`."""


@pytest.hookimpl(wrapper=True)  # so that it is before xdist reads the groups, whoever was registered first
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Keep the tests of a file in one process, where there are several; mark what takes long."""
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(TOGETHER.get(folder, item.path.stem)))
        if folder in FLEET:
            item.add_marker(pytest.mark.fleet)
    return (yield)


TREE = ("README.md", "auth/login.py", "api/endpoints.py", "api/schema.sql", "tests/test_login.py", ".hidden")


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def facts() -> Iterator[list[events.Event]]:
    """Every fact that is stated while the test runs, in order."""
    stated: list[events.Event] = []
    stop = events.subscribe(stated.append)
    yield stated
    stop()


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of six files, for OnexTree to index."""
    root = tmp_path_factory.mktemp("tree")
    for name in TREE:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {name}\n")
    return root


@pytest.fixture(scope="session")
def metadata_services() -> Iterator[dict[Dialect, RunningService]]:
    with (
        serving(metadata_service.create_app("service"), "service") as service,
        serving(metadata_service.create_app("guide"), "guide") as guide,
    ):
        yield {"service": service, "guide": guide}


@pytest.fixture(scope="session")
def onextree_services(tree: Path) -> Iterator[dict[Dialect, RunningService]]:
    with (
        serving(onextree_service.create_app("service", tree), "service") as service,
        serving(onextree_service.create_app("guide", tree), "guide") as guide,
    ):
        yield {"service": service, "guide": guide}


@pytest.fixture(params=["service", "guide"])
def metadata(
    request: pytest.FixtureRequest, metadata_services: dict[Dialect, RunningService]
) -> Iterator[RunningService]:
    """MetadataStampingService, in each dialect."""
    service = metadata_services[request.param]
    service.reset()
    yield service
    service.reset()


@pytest.fixture(params=["service", "guide"])
def onextree(
    request: pytest.FixtureRequest, onextree_services: dict[Dialect, RunningService]
) -> Iterator[RunningService]:
    """OnexTree, in each dialect."""
    service = onextree_services[request.param]
    service.reset()
    yield service
    service.reset()
