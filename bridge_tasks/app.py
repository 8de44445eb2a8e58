"""The Celery application: `celery -A bridge_tasks.app worker`. It wires; it decides nothing.

Every message gets its furniture when it is published, and a task's correlation id is bound while it runs, for our
tasks and for any other task of the application.
"""

import os
from contextlib import ExitStack
from typing import Any

from celery import Celery
from celery.signals import before_task_publish, task_postrun, task_prerun

from bridge_tasks import correlation, messages

app = Celery("bridge_tasks", amqp=messages.UntellingAMQP)
app.config_from_object(os.environ.get("CELERY_CONFIG_MODULE", "bridge_tasks.celeryconfig"))
app.set_default()

before_task_publish.connect(messages.furnish, dispatch_uid="bridge_tasks.messages", weak=False)

_bound: dict[str, ExitStack] = {}
"""Running tasks by id: what to undo when each is over."""


@task_prerun.connect(dispatch_uid="bridge_tasks.bind", weak=False)
def _bind(task_id: str, task: Any, **_: Any) -> None:
    """Bind the message's id; a message that came without one (sent by hand) gets one here."""
    stack = ExitStack()
    stack.enter_context(correlation.bound(messages.correlation_of(task.request) or correlation.ensure()))
    _bound[task_id] = stack


@task_postrun.connect(dispatch_uid="bridge_tasks.unbind", weak=False)
def _unbind(task_id: str, **_: Any) -> None:
    """Undo it; Celery publishes a task's successors before this."""
    if task_id in _bound:
        _bound.pop(task_id).close()
