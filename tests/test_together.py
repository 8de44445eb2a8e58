"""The tests run in several processes; those that share a stack must share a process."""

import os

import pytest


def test_a_file_s_tests_are_kept_together_among_several_processes(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@test_together")
