"""What the chaos tests share."""

import os

import pytest


@pytest.fixture
def inherited() -> dict[str, str]:
    """This process's environment, without what a deployment set in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "CELERY_"))}
