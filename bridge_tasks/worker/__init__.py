"""What a worker does besides running tasks: opening, closing, logging, pausing, refusing what cannot work."""

from bridge_tasks.worker import endings, pausing, reconnecting, refusing, signals

__all__ = ["endings", "pausing", "reconnecting", "refusing", "signals"]
