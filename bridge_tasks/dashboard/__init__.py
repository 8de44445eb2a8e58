"""Flower, shut to strangers, with a page of our own for bulk runs and queues. `celery -A bridge_tasks.app flower`.

Celery imports this as a module of the application (`imports`), in workers too; only where Flower was loaded is
anything done, and what is done has an effect only where Flower is started.
"""

import sys

if "flower.app" in sys.modules:
    from bridge_tasks.dashboard.guard import guard

    guard()
