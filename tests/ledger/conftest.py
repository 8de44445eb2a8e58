"""What the ledger's tests share: a Redis of its own, which no worker looks at."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # Once for all folders that ask: the same fixtures, and so the same Redis.
    config.pluginmanager.import_plugin("tests.workers")
