"""What a worker process does besides running tasks: opening, closing, logging, refusing what cannot work."""

from bridge_tasks.worker import endings, signals

__all__ = ["endings", "signals"]
