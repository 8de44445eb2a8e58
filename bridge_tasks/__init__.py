"""Celery tasks that hash, enrich and stamp files through one resilience-wrapped HTTP client.

`app` is the Celery application, `workflows` builds canvases, `Bridge` submits and awaits them. They are loaded
on first use, so that `import bridge_tasks.clients` costs an asyncio program no Celery.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge_tasks import workflows
    from bridge_tasks.app import app
    from bridge_tasks.bridge import Bridge

__all__ = ["Bridge", "app", "workflows"]

_HOMES = {"app": "bridge_tasks.app", "Bridge": "bridge_tasks.bridge"}


def __getattr__(name: str) -> Any:
    if name == "workflows":
        return import_module("bridge_tasks.workflows")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
