"""Celery tasks that hash, enrich and stamp files through one resilience-wrapped HTTP client.

`app` is the Celery application, `workflows` builds canvases, `Bridge` submits and awaits them (`AsyncBridge` for
asyncio programs). They are loaded on first use, so that `import bridge_tasks.clients` costs no Celery.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge_tasks import workflows
    from bridge_tasks.app import app
    from bridge_tasks.async_bridge import AsyncBridge
    from bridge_tasks.bridge import Bridge

__all__ = ["AsyncBridge", "Bridge", "app", "workflows"]


class _Package(ModuleType):
    """`app` is both a module and the application in it: as an attribute of the package, it is the application."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_module = name == "app" and isinstance(value, ModuleType)  # what the import system sets
        super().__setattr__(name, value.app if is_module else value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    match name:
        case "app":
            return import_module("bridge_tasks.app").app
        case "AsyncBridge":
            return import_module("bridge_tasks.async_bridge").AsyncBridge
        case "Bridge":
            return import_module("bridge_tasks.bridge").Bridge
        case "workflows":
            return import_module("bridge_tasks.workflows")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
