"""Ends that no task tells the ledger of itself: failures, also of a child that was killed, revocations, expiry.

Celery tells of some twice (a hard time limit) and of some in the worker's main process; the ledger takes the
first.
"""

from typing import Any

from celery.exceptions import Reject
from celery.signals import task_failure, task_revoked, task_success

from bridge_tasks.app import app
from bridge_tasks.ledger import Outcome
from bridge_tasks.tasks import claiming
from bridge_tasks.tasks.base import BridgeTask


@task_failure.connect(dispatch_uid="bridge_tasks.failed", weak=False)
def _failed(sender: Any = None, task_id: str = "", exception: BaseException | None = None, **_: Any) -> None:
    if _ours(sender) and isinstance(exception, Reject):
        claiming.release(task_id)  # a retry that could not be published: Celery gives it up, we do not
    elif _ours(sender) and exception is not None:
        claiming.note(task_id, claiming.failure(exception))


@task_success.connect(dispatch_uid="bridge_tasks.succeeded", weak=False)
def _succeeded(sender: Any = None, result: Any = None, **_: Any) -> None:
    """Note the end of somebody else's task that is a step of a job, or stands in the place of one of ours."""
    if _ours(sender) and not isinstance(sender, BridgeTask):
        claiming.note(sender.request.id, Outcome("succeeded", result))


@task_revoked.connect(dispatch_uid="bridge_tasks.revoked", weak=False)
def _revoked(sender: Any = None, request: Any = None, **_: Any) -> None:
    if _ours(sender) and request is not None:
        claiming.note(request.id, Outcome("cancelled"))


def _ours(task: Any) -> bool:
    return getattr(task, "app", None) is app and not task.request.is_eager
