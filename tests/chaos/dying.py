"""Dies at a named point: a module that a worker (`--include`) or a submitter imports, to be killed there, once.

The environment says where (`CHAOS_POINT`), who dies (`CHAOS_VICTIM`: this `process`, or its whole group), and by
which file (`CHAOS_MARK`) it is known that somebody died already. Without it, nothing happens. The package under
test knows nothing of this module.
"""

import inspect
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from bridge_tasks.broker import rabbitmq, redis
from bridge_tasks.driver import drive
from bridge_tasks.ledger import JobLedger
from bridge_tasks.ledger.runs import RunLedger
from bridge_tasks.resilience.transport.blocking import BlockingExchange
from bridge_tasks.tasks import claiming
from bridge_tasks.worker.reconciler import Reconciler

Seen = Callable[[tuple[Any, ...], Any], bool]
"""Whether this call, with these arguments and this result, is one to die at."""


def _is_stamp(arguments: tuple[Any, ...], _: Any) -> bool:
    return str(arguments[1].url.path).endswith("/stamp")


def _is_ours(arguments: tuple[Any, ...], _: Any) -> bool:
    return str(arguments[2]["headers"].get("task")).startswith("bridge.")


def _is_next(arguments: tuple[Any, ...], _: Any) -> bool:
    return bool(arguments[2]["headers"].get("parent_id"))


def _is_next_there(arguments: tuple[Any, ...], _: Any) -> bool:
    return bool(arguments[1]["headers"].get("parent_id"))


def _went_well(_: tuple[Any, ...], result: Any) -> bool:
    return bool(result)


def _is_held(arguments: tuple[Any, ...], _: Any) -> bool:
    return len(arguments) > len(("channel", "key", "raw"))


def _any(_: tuple[Any, ...], __: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Point:
    """Before or after which call, of those that `seen` is true of."""

    owner: Any
    name: str
    after: bool
    seen: Seen = _any


POINTS = {
    "before it is published": Point(redis.Channel, "_put", after=False, seen=_is_ours),
    "after it was published": Point(redis.Channel, "_put", after=True, seen=_is_ours),
    "between BRPOP and unacked": Point(redis.QoS, "append", after=False),
    "after unacked was written": Point(redis.QoS, "append", after=True),
    "after the next was taken": Point(redis.QoS, "take", after=True, seen=_went_well),
    "before what was taken is admitted": Point(redis.Channel, "_admit", after=False, seen=_is_held),
    "after it was claimed": Point(JobLedger, "begin", after=True),
    "before the service is asked": Point(BlockingExchange, "handle_async_request", after=False, seen=_is_stamp),
    "after the service's success": Point(BlockingExchange, "handle_async_request", after=True, seen=_is_stamp),
    "before the ledger is told": Point(claiming, "note", after=False),
    "after the ledger was told": Point(JobLedger, "finish", after=True),
    "before it is acknowledged": Point(redis.QoS, "ack", after=False),
    "after it was acknowledged": Point(redis.QoS, "ack", after=True),
    "before RabbitMQ's record": Point(rabbitmq.Channel, "_record", after=False),
    "after RabbitMQ's record": Point(rabbitmq.Channel, "_record", after=True),
    "sent to RabbitMQ, not confirmed": Point(rabbitmq.Channel, "_await_confirm", after=False),
    "confirmed by RabbitMQ, in the outbox": Point(rabbitmq.Channel, "_note_sent", after=False),
    "out of the outbox": Point(rabbitmq.Channel, "_note_sent", after=True),
    "before RabbitMQ is told": Point(rabbitmq.Channel, "basic_ack", after=False),
    "after RabbitMQ was told": Point(rabbitmq.Channel, "basic_ack", after=True),
    "before the next step goes to RabbitMQ": Point(rabbitmq.Channel, "resend", after=False, seen=_is_next_there),
    "after the next step went to RabbitMQ": Point(rabbitmq.Channel, "resend", after=True, seen=_is_next_there),
    "before the next step is published": Point(redis.Channel, "_put", after=False, seen=_is_next),
    "after the next step was published": Point(redis.Channel, "_put", after=True, seen=_is_next),
    "before a chunk is settled": Point(RunLedger, "settle", after=False),
    "after a chunk was settled": Point(RunLedger, "settle", after=True),
    "after a lost message was pushed": Point(JobLedger, "requeue", after=True, seen=_went_well),
    "after a held message was given back": Point(Reconciler, "_restored", after=True, seen=_went_well),
}


def die_at(name: str, mark: Path, *, alone: bool) -> None:
    """Have this process die at a point, unless `mark` exists by then; `alone`, or with its process group."""
    point = POINTS[name]
    original = getattr(point.owner, point.name)

    def die(arguments: tuple[Any, ...], result: Any) -> None:
        if point.seen(arguments, result) and _first(mark):
            os.kill(os.getpid() if alone else -os.getpgrp(), signal.SIGKILL)

    @wraps(original)
    async def call(*arguments: Any, **keywords: Any) -> Any:
        if not point.after:
            die(arguments, None)
        result = original(*arguments, **keywords)
        result = await result if inspect.isawaitable(result) else result
        if point.after:
            die(arguments, result)
        return result

    def call_now(*arguments: Any, **keywords: Any) -> Any:
        return drive(call(*arguments, **keywords))

    setattr(point.owner, point.name, call if inspect.iscoroutinefunction(original) else wraps(original)(call_now))


def _first(mark: Path) -> bool:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


if "CHAOS_POINT" in os.environ:
    die_at(
        os.environ["CHAOS_POINT"], Path(os.environ["CHAOS_MARK"]), alone=os.environ["CHAOS_VICTIM"] == "process"
    )
