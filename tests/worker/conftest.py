"""Tests of what workers do ask for workers, and for their Redis."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # Once for all folders that ask: the same fixtures, and so the same workers.
    config.pluginmanager.import_plugin("tests.workers")
