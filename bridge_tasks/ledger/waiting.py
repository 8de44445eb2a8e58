"""Waiting for jobs, in a synchronous program: one subscription for all of them, and no polling.

`watch` asks for a job's state and for word of its end in one step, so no end falls between the two; when the
connection breaks, all that is still awaited is asked about again.
"""

import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from uuid import uuid4

import redis
from redis.client import PubSub

from bridge_tasks.driver import drive
from bridge_tasks.errors import JobUnknown
from bridge_tasks.ledger.jobs import JobLedger
from bridge_tasks.ledger.records import Outcome

CHANNEL = "bridge:ended:"

_LISTEN_SECONDS = 1.0
_ASK_SECONDS = 30.0
"""Ends are pushed; this is for a Redis that lost who waits."""
_PAUSE_SECONDS = 0.2


def outcomes_of(
    client: redis.Redis, ledger: JobLedger, names: Collection[str], timeout: float | None = None
) -> Iterator[tuple[str, Outcome]]:
    """Give each job's outcome as it ends.

    Args:
        client: a Redis client; one connection of its pool is used.
        ledger: over the same Redis.
        names: the jobs' ids.
        timeout: seconds for all; None waits for ever.

    Raises:
        TimeoutError: some have not ended.
        redis.RedisError: Redis is out of reach, and no time is left.
    """
    waiting = dict.fromkeys(names)
    ends = None if timeout is None else time.monotonic() + timeout
    channel = f"{CHANNEL}{uuid4().hex}"
    with client.pubsub() as news:  # type: ignore[no-untyped-call] # redis-py's own gap
        subscribed = False
        asked = 0.0
        while waiting:
            try:
                if not subscribed:
                    _subscribe(news, channel)
                    subscribed, asked = True, 0.0
                if not asked or time.monotonic() - asked > _ASK_SECONDS:
                    asked = time.monotonic()
                    fresh = list(waiting)
                else:
                    fresh = _heard(news, ends)
                for name, outcome in _ended(ledger, [name for name in fresh if name in waiting], channel):
                    del waiting[name]
                    yield name, outcome
            except (redis.ConnectionError, redis.TimeoutError):
                subscribed = False
                with suppress(redis.RedisError, OSError):
                    news.reset()
                if ends is not None and time.monotonic() > ends:
                    raise
                time.sleep(_PAUSE_SECONDS)
            if waiting and ends is not None and time.monotonic() > ends:
                raise TimeoutError(f"{len(waiting)} jobs have not ended after {timeout} s")


def _subscribe(news: PubSub, channel: str) -> None:
    news.subscribe(channel)
    while (message := news.get_message(timeout=_LISTEN_SECONDS)) is None or message["type"] != "subscribe":
        if message is None:
            raise redis.TimeoutError("the subscription was not confirmed")


def _heard(news: PubSub, ends: float | None) -> list[str]:
    """The jobs whose end was told; waits a moment for the first."""
    wait = _LISTEN_SECONDS if ends is None else max(0.0, min(_LISTEN_SECONDS, ends - time.monotonic()))
    heard: list[str] = []
    while (message := news.get_message(timeout=0.0 if heard else wait)) is not None:
        if message["type"] == "message":
            heard.append(message["data"].decode())
    return heard


def _ended(ledger: JobLedger, names: list[str], channel: str) -> Iterator[tuple[str, Outcome]]:
    if not names:
        return
    known = drive(ledger.watch(names, channel))
    for name in names:
        if name not in known:
            yield name, Outcome("failed", error=JobUnknown(f"there is no record of job {name}"))
        elif (outcome := known[name]) is not None:
            yield name, outcome
