"""The Celery application: `celery -A bridge_tasks.app worker`. It wires; it decides nothing.

A task's correlation id is bound while it runs, for our tasks and for any other task of this application. Importing
this changes nothing for other applications in the process: it is neither the current nor the default one until a
worker of ours makes it so.
"""

import os
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from celery import Celery
from celery.signals import task_postrun, task_prerun
from structlog.contextvars import bound_contextvars

from bridge_tasks import correlation, messages, tracing
from bridge_tasks.errors import ConfigurationError
from bridge_tasks.settings import load

app = Celery(
    "bridge_tasks",
    amqp=messages.FurnishingAMQP,
    events="bridge_tasks.tellings:Events",
    task_cls="bridge_tasks.tasks.steps:Step",
    set_as_current=False,
)
app.config_from_object(os.environ.get("CELERY_CONFIG_MODULE", "bridge_tasks.celeryconfig"))

_bound: dict[str, ExitStack] = {}
"""Running tasks by id: what to undo when each is over."""
_spans: dict[str, tracing.Span] = {}
"""The same: where somebody traces, what is told of each."""


def _tracer() -> tracing.Tracer | None:
    if not load().tracing.enabled:
        return None
    try:
        from bridge_tasks.observability import spans  # noqa: PLC0415 - only where it is wanted
    except ImportError as error:
        raise ConfigurationError("BRIDGE_TRACING__ENABLED: pip install 'bridge-tasks[otel]'") from error
    return spans.start(share=load().tracing.share)


tracing.offer(_tracer)


def _span(task_id: str, task: Any) -> AbstractContextManager[tracing.Span]:
    """Begin the span of a run, as part of what published its message."""
    request = task.request
    carried = {name: value for name in tracing.HEADERS if isinstance(value := request.get(name), str)}
    return tracing.span(
        f"run {task.name}",
        "consumer",
        carried,
        {
            "messaging.message.id": task_id,
            "bridge.attempt": request.retries + 1,
            "bridge.job": request.get(messages.JOB) or task_id,
        },
    )


@task_prerun.connect(dispatch_uid="bridge_tasks.bind", weak=False)
def _bind(task_id: str, task: Any, **_: Any) -> None:
    """Bind the message's id, and for log lines what runs; a message that came without one gets one here."""
    if task.app is not app:
        return
    stack = ExitStack()
    stack.enter_context(correlation.bound(messages.correlation_of(task.request) or correlation.ensure()))
    job = task.request.get(messages.JOB)
    which = {"job": job} if isinstance(job, str) else {}
    if tracing.is_on():
        _spans[task_id] = stack.enter_context(_span(task_id, task))
    stack.enter_context(bound_contextvars(task_id=task_id, attempt=task.request.retries + 1, **which))
    _bound[task_id] = stack


@task_postrun.connect(dispatch_uid="bridge_tasks.unbind", weak=False)
def _unbind(task_id: str, state: str | None = None, retval: Any = None, **_: Any) -> None:
    """Undo it; Celery publishes a task's successors before this."""
    if task_id in _spans:
        span = _spans.pop(task_id)
        span.tell({"celery.state": str(state)})
        if state == "FAILURE":
            span.fail(type(retval).__name__)
    if task_id in _bound:
        _bound.pop(task_id).close()
