"""What a worker process does besides running tasks: opening, closing, logging, refusing what cannot work."""

from bridge_tasks.worker import signals

__all__ = ["signals"]
