"""What a worker does each time it is connected again: it gives back what it held over the connection before.

Celery forgets such messages (those that wait for their time among them), and cannot acknowledge them any more.
A step of Celery's consumer; it runs before anything is fetched, so what is held by then is from before.
"""

from typing import Any

from celery import bootsteps

from bridge_tasks.app import app
from bridge_tasks.broker.redis import Channel
from bridge_tasks.worker import signals


class GiveBack(bootsteps.StartStopStep):
    """The step."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Give back, once nothing can be added to it; the first time, there is nothing, and nobody to do it."""
        channel = parent.task_consumer.channel
        if isinstance(channel, Channel):
            channel.qos.begin_session()
        signals.give_back()


app.steps["consumer"].add(GiveBack)
