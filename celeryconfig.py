"""Where a deployment changes Celery: everything of `bridge_tasks.celeryconfig`, then your own values.

Used when CELERY_CONFIG_MODULE=celeryconfig is set (docker-compose.yml sets it). For example:
    worker_max_tasks_per_child = 1000
"""

from bridge_tasks.celeryconfig import *  # noqa: F403 - a configuration module is its names
