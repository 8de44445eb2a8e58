"""Tasks of our application that are not ours, as a user of it writes them; a worker imports them (`--include`)."""

import threading
from contextlib import suppress
from typing import Any

from celery import chain, chord, group
from celery.exceptions import SoftTimeLimitExceeded

from bridge_tasks import correlation
from bridge_tasks.app import app
from bridge_tasks.runtime import current
from bridge_tasks.tasks import generate_hash
from tests.tasks.sending import inline

RAN = "test:ran:"


def ran(cid: str) -> list[str]:
    """What ran under a correlation id, in order."""
    return [
        name.decode() if isinstance(name, bytes) else name for name in current().redis.lrange(RAN + cid, 0, -1)
    ]


def _note(name: str) -> None:
    current().redis.rpush(f"{RAN}{correlation.current()}", name)


@app.task(name="foreign.echo")
def echo(*args: Any) -> Any:
    """Give back the last argument, which is its name."""
    _note(args[-1])
    return args[-1]


@app.task(name="foreign.gather")
def gather(results: list[Any], name: str) -> Any:
    """The body of a chord."""
    _note(name)
    return len(results)


@app.task(name="foreign.stumble", bind=True, max_retries=3)
def stumble(self: Any, name: str) -> str:
    """Succeed at the third run."""
    _note(name)
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return name


@app.task(name="foreign.fail")
def fail(*args: Any) -> None:
    """Fail for good, in a way of its own."""
    _note(args[-1])
    raise ValueError("secret: 1234")


@app.task(name="foreign.caught")
def caught(name: str) -> None:
    """An error callback that is a message; of one that takes more than an id, Celery makes a plain call."""
    _note(name)


@app.task(name="foreign.hang", soft_time_limit=1, time_limit=2)
def hang(name: str) -> None:
    """Hold a worker's child until it is killed."""
    _note(name)
    while True:
        with suppress(SoftTimeLimitExceeded):
            threading.Event().wait(60)


@app.task(name="foreign.stand_in", bind=True, max_retries=3)
def stand_in(self: Any, kind: str, broken: str | None, stumbles: int = 0) -> Any:
    """Put a canvas in its own place; one member of it may be broken."""
    if self.request.retries < stumbles:
        raise self.retry(countdown=0.2)
    _note("stand_in")
    one, two, three = (fail.si(name) if name == broken else echo.si(name) for name in ("one", "two", "three"))
    return self.replace(
        {
            "task": one,
            "chain": chain(one, two, three),
            "group": group(one, two),
            "chord": chord([one, two], gather.s("three")),
            "chain with a group": chain(one, group(two, three)),
            "ours": generate_hash.si(content=inline("stands in")),
        }[kind]
    )
