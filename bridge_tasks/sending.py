"""Sends what is planned: a canvas by itself, or much work in one round trip. It waits for nothing.

Messages that go together are announced together too (`task-sent`, for Flower): in one message, once they are sent.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import redis
from celery.backends.asynchronous import E_RETRY_LIMIT_EXCEEDED  # type: ignore[attr-defined] # absent from the stubs
from celery.canvas import Signature, group
from celery.events import Event
from celery.utils.nodenames import anon_nodename
from celery.utils.time import utcoffset
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from bridge_tasks import correlation, tracing
from bridge_tasks.app import app
from bridge_tasks.broker import recording
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.ledger import Submission
from bridge_tasks.ledger.jobs import PUT
from bridge_tasks.messages import HEADER, announcing_later
from bridge_tasks.runtime import current
from bridge_tasks.submissions import address, fresh, planned, tasks_of

T = TypeVar("T")

AT_ONCE = 50
"""Jobs that go to Redis in one round trip, at most."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message that has been built and not been sent.

    Attributes:
        plan: the job that it is.
        correlation_id: what it carries.
        arguments: those of `put.lua`.
        announcement: what events say of it; None where they are off.
    """

    plan: Submission
    correlation_id: str | None
    arguments: tuple[Any, ...]
    announcement: dict[str, Any] | None


def batches(works: Iterable[T]) -> Iterator[list[T]]:
    """Divide work into what goes together: the first alone, then twice as many each time, up to `AT_ONCE`.

    Workers begin with the first while the others are prepared.
    """
    remaining, many = iter(works), 1
    while some := list(islice(remaining, many)):
        yield some
        many = min(2 * many, AT_ONCE)


def send(work: Signature[Any]) -> None:
    """Send a canvas now.

    Raises:
        InvalidRequest, kombu.exceptions.OperationalError: as `Bridge.submit`.
    """
    if isinstance(work, group):  # member by member: the ledger counts them, no result backend need
        for member in work.tasks:
            send(member)
        return
    try:
        work.apply_async()
    except RuntimeError as error:
        if str(error) == E_RETRY_LIMIT_EXCEEDED:
            raise OperationalError("the result backend is out of reach; nothing was sent") from error
        raise


def prepared(
    work: Signature[Any],
    *,
    force: bool,
    correlation_id: UUID | str | None = None,
    carrier: tracing.Carrier | None = None,
) -> Prepared:
    """Build the message of a task or of a chain's first, and keep it for now.

    Raises:
        InvalidRequest: an argument is wrong, or it is more than one message.
    """
    work = fresh(work)
    address(work, correlation_id)
    plan = planned(work, force=force)
    span = tracing.span("submit", carried=carrier, attributes={"bridge.job": plan.job})
    with span, recording.submitting(plan, collect=True) as under_way, announcing_later() as announcements:
        send(work)
    if under_way.held_back is None or len(under_way.held_back) != 1:
        raise InvalidRequest("work", "begins with more than one message: submit it by itself")
    told = announcements[0] if announcements else None
    return Prepared(plan, next(carried(work)) or correlation.current(), under_way.held_back[0], told)


def send_together(messages: Sequence[Prepared]) -> Iterator[tuple[Prepared, str | None]]:
    """Send tasks in one round trip; give each, and the job that stands in its place, if there is one.

    Raises:
        kombu.exceptions.OperationalError: the broker is out of reach; some may have been sent.
    """
    client = current().ledger_redis
    try:
        if not client.script_exists(PUT.digest)[0]:
            client.script_load(PUT.source)
        answers = _together(client, [("EVALSHA", PUT.digest, *message.arguments) for message in messages])
    except RedisError as error:
        raise OperationalError("the broker is out of reach; not all was sent") from error
    _announce([one.announcement for one, (sent, *_) in zip(messages, answers, strict=True) if sent])
    for one, (sent, name, _state) in zip(messages, answers, strict=True):
        yield one, name.decode() if not sent and name.decode() != one.plan.job else None


def _together(client: redis.Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    copies = recording.wanted_copies()
    if copies is not None:
        return copies.run_all(client, commands)
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py's own gap
        return list(pipe.execute())


def carried(work: Signature[Any]) -> Iterator[str | None]:
    """Give the correlation id of every task in a canvas; None for one that has none yet."""
    for task in tasks_of(work):
        found = (task.options.get("headers") or {}).get(HEADER)
        yield correlation.parse(found) if found is not None else None


def _announce(announcements: Sequence[dict[str, Any] | None]) -> None:
    """Publish what Celery would, had it sent each; nobody's job depends on it."""
    about = {"hostname": anon_nodename(), "utcoffset": utcoffset(), "pid": os.getpid()}
    clock = app.clock.forward  # type: ignore[attr-defined] # not in the stubs
    told = [Event("task-sent", {**about, "clock": clock(), **fields}) for fields in announcements if fields]
    if not told:
        return
    with app.producer_or_acquire() as producer:
        try:
            producer.publish(
                told,
                exchange=app.conf.event_exchange,
                routing_key="task.multi",
                serializer=app.conf.event_serializer,
                headers={"hostname": about["hostname"]},
                delivery_mode="transient",
                retry=False,
            )
        except OperationalError:
            return
