"""What a worker does besides running tasks: opening, closing, logging, pausing, refusing what cannot work."""

from bridge_tasks.worker import announcing, endings, pausing, reconnecting, signals

__all__ = ["announcing", "endings", "pausing", "reconnecting", "signals"]
