"""What every transport of ours does with a message: it is signed, has a record, and is vetted when it comes.

A transport knows its broker; this knows none, and sends nothing.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
from kombu.utils.json import dumps, loads

from bridge_tasks import events
from bridge_tasks.broker import admission
from bridge_tasks.copies import CopiedRedis, Copies
from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.errors import MessageRefused
from bridge_tasks.ledger import JobLedger, keys
from bridge_tasks.ledger.commands import run
from bridge_tasks.ledger.jobs import PUT
from bridge_tasks.ledger.records import Submission
from bridge_tasks.ledger.workers import NOBODY, this_worker
from bridge_tasks.messages import HEADER, ITEM, JOB, OUR_TASKS, PART, SUBJECT, rank_of
from bridge_tasks.resilience.state.shared_redis import Script
from bridge_tasks.runtime import current
from bridge_tasks.settings import load
from bridge_tasks.signing import signer_of


@dataclass(slots=True)
class Submitting:
    """A submission under way.

    Attributes:
        submission: what is submitted.
        stands: the job that stands in its place, once that is known.
        state: that job's.
        accepted: whether the ledger has it.
        held_back: the calls of the script that would have been made, where they are collected.
    """

    submission: Submission
    stands: str | None = None
    state: str | None = None
    accepted: bool = False
    held_back: list[tuple[Any, ...]] | None = field(default=None, repr=False)

    def learn(self, name: str, *, sent: bool, stands: bytes, state: bytes) -> None:
        """Take in what `put.lua` answered for the first message, whose id is `name`."""
        self.accepted = True
        self.state = state.decode()
        if not sent and stands.decode() != name:
            self.stands = stands.decode()


_submitting: ContextVar[Submitting | None] = ContextVar("bridge_submitting", default=None)


@contextmanager
def submitting(submission: Submission, *, collect: bool = False) -> Iterator[Submitting]:
    """Have the first message that is sent in a `with` block carry a submission.

    Args:
        submission: what is submitted.
        collect: send nothing; `held_back` tells what to send.
    """
    under_way = Submitting(submission, held_back=[] if collect else None)
    token = _submitting.set(under_way)
    try:
        yield under_way
    finally:
        _submitting.reset(token)


def under_way() -> Submitting | None:
    """Return the submission that the next message carries, if there is one."""
    return _submitting.get()


def is_recorded(headers: Mapping[str, Any]) -> bool:
    """Tell whether a message has a record: it asks for a task of ours, or is a step of a job."""
    return isinstance(headers.get("id"), str) and (
        str(headers.get("task")).startswith(OUR_TASKS) or bool(headers.get(JOB))
    )


def run_script(client: Any, script: Script, names: Sequence[str], arguments: Sequence[Any]) -> Any:
    """Run a script of the ledger over a blocking client, or one that is kombu's."""
    return drive(run(BlockingRedis(client), script, names, arguments))


def put(client: Any, names: Sequence[str], arguments: Sequence[Any]) -> Any:
    """Write a record, as `put.lua` does; what begins something waits until a replica has it, where there are any.

    What a worker sends (a next step, a retry) may be lost with its master: it sends it again, as what it follows
    from is not over then. What begins something is nobody's to send again.

    Args:
        client: of the ledger.
        names: the keys that the script takes.
        arguments: the script's.
    """
    begins = under_way() is not None or this_worker() == NOBODY
    copies = wanted_copies() if begins else None
    commands = BlockingRedis(client) if copies is None else CopiedRedis(client, copies)
    return drive(run(commands, PUT, names, arguments))


def wanted_copies() -> Copies | None:
    """What a message waits for that begins something; None where there is nothing to wait for."""
    return current().copies if load().ledger_place.watched else None


def signed(message: dict[str, Any]) -> dict[str, Any]:
    """Sign what asks for a task, where there are keys, and send nothing that no worker would take."""
    if "task" not in message["headers"]:
        return message
    rules = load().ledger
    signer = signer_of(rules.signing_keys, rules.max_age)
    if signer is not None:
        message = signer.signed(orjson.loads(dumps(message)), time.time())
    if len(message["body"]) > rules.max_message_bytes // 2:  # else it cannot reach the limit with all its headers
        size = len(dumps(message))
        if size > rules.max_message_bytes:
            raise MessageRefused("message", f"is {size} bytes; at most {rules.max_message_bytes} are sent")
    return message


def vet_task(message: Mapping[str, Any]) -> None:
    """Look whether a message asks for a task, and was signed by somebody who may.

    Raises:
        MessageRefused: it is not so.
    """
    rules = load().ledger
    admission.vet_task(message)
    signer = signer_of(rules.signing_keys, rules.max_age)
    if signer is not None:
        signer.check(message, time.time())


def revived(message: dict[str, Any], raw: bytes) -> dict[str, Any]:
    """Return a message with the values that kombu marks (a date, say, in somebody's own header) as they were.

    Raises:
        MessageRefused: one of them cannot be read.
    """
    if _TYPED not in raw:
        return message
    try:
        return loads(orjson.dumps(message))  # type: ignore[no-any-return] # what it was before
    except (ValueError, TypeError, AttributeError, ArithmeticError):
        raise MessageRefused("message", "holds a marked value that cannot be read") from None


def refuse(
    acquire: Callable[[], AbstractContextManager[Any]],
    queue: str,
    name: str | None,
    message: Mapping[str, Any],
    error: MessageRefused,
) -> None:
    """Tell that a message is dropped; whoever waits for a job whose very message it is, hears why.

    Args:
        acquire: gives a Redis client for the ledger.
        queue: where it was taken from.
        name: the id that it claims to have.
        message: all of it.
        error: what is wrong with it.
    """
    name = name if admission.is_id(name) else None
    events.emit(events.MessageDropped(queue, error.field, error.reason, name))
    if name is None:
        return
    try:
        with acquire() as client:
            drive(JobLedger(BlockingRedis(client), load().ledger).refuse(name, message, error))
    except redis.RedisError as away:
        events.emit(events.LedgerSilent("refuse", type(away).__name__))


def record_of(message: Mapping[str, Any], queue: str) -> tuple[Any, ...]:
    """What `put.lua` takes of any message."""
    headers = message["headers"]
    ledger = load().ledger
    return (
        headers["id"],
        dumps(message),
        queue,
        headers["task"],
        headers.get(HEADER) or "",
        headers.get(SUBJECT) or "",
        rank_of(headers),
        int(ledger.max_age + ledger.keep),
        headers.get(JOB) or "",
        headers.get(PART) or "",
        headers.get(ITEM) or "",
    )


def keys_of(name: str, queue: str) -> tuple[str, str, str]:
    """The keys that `put.lua` takes: the record, the queue's list, the queue's open records."""
    return keys.JOB + name, queue, keys.OPEN + queue


_TYPED = b'"__type__"'
