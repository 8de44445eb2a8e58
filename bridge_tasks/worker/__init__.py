"""What a worker process does besides running tasks: opening, closing, logging, refusing what cannot work."""

from bridge_tasks.worker import endings, reconnecting, signals

__all__ = ["endings", "reconnecting", "signals"]
