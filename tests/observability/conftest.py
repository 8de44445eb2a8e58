"""Tests of what is observed ask for workers."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # Once for all folders that ask: the same fixtures, and so the same workers.
    config.pluginmanager.import_plugin("tests.workers")
