"""Celery's configuration for a worker that sends everything twice."""

from bridge_tasks.celeryconfig import *  # noqa: F403 - a configuration module is its names

broker_transport = "tests.doubling:Transport"
