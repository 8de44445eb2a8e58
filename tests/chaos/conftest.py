"""What the chaos tests share."""

import os

import pytest


@pytest.fixture
def inherited() -> dict[str, str]:
    """This process's environment, without what a deployment set in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "CELERY_"))}


def pytest_configure(config: pytest.Config) -> None:
    # Once for all folders that ask: the same fixtures, and so the same workers.
    config.pluginmanager.import_plugin("tests.workers")
