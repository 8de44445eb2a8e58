"""What a worker does besides running tasks: opening, closing, logging, its pulse, pausing, refusing, taking."""

from bridge_tasks.worker import announcing, endings, heart, pausing, reconnecting, refusing, signals, taking

__all__ = ["announcing", "endings", "heart", "pausing", "reconnecting", "refusing", "signals", "taking"]
