"""What workers say of their jobs to whoever listens (Flower does): all of it, and several facts in a message."""

import json
from base64 import b64decode
from typing import Any

import redis

from bridge_tasks.tasks import generate_hash
from tests.tasks.sending import inline
from tests.workers import Pool, eventually

JOBS = 40


def test_every_job_s_events_are_heard_and_travel_together(prefork: Pool) -> None:
    with redis.Redis.from_url(prefork.redis_url) as client, client.pubsub() as channel:
        channel.psubscribe("/*.celeryev/task.multi")
        assert eventually(lambda: channel.get_message(timeout=0.1))
        asked = [generate_hash.delay(content=inline(f"hello {number}")) for number in range(JOBS)]
        messages: list[list[dict[str, Any]]] = []

        def ended() -> bool:
            if (message := channel.get_message(timeout=0.1)) is not None:
                messages.append(json.loads(b64decode(json.loads(message["data"])["body"])))
            kinds = [event["type"] for some in messages for event in some]
            return kinds.count("task-succeeded") == JOBS

        assert eventually(ended)

    told = [(event["uuid"], event["type"]) for some in messages for event in some]
    kinds = ("task-received", "task-started", "task-succeeded")
    assert sorted(told) == sorted((job.id, kind) for job in asked for kind in kinds)
    assert len(messages) < JOBS, "one for each job, at least, is what Celery makes of it"
