"""What a worker does besides running tasks: opening, closing, logging, its pulse, pausing, refusing."""

from bridge_tasks.worker import announcing, endings, heart, pausing, reconnecting, refusing, signals

__all__ = ["announcing", "endings", "heart", "pausing", "reconnecting", "refusing", "signals"]
