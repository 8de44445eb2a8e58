"""What a worker takes from a queue: anybody who can write to Redis may have put it there. Pure.

A message is read and looked through before Celery sees any of it, since a header of the wrong type ends Celery's
consumer, and a worker that takes such a message from the queue again does not come back. Refused are, each under a
name of its own: what is no message; pickles and whatever else is no JSON; compressed bodies, of which a kilobyte
may become a gigabyte; headers of wrong types; steps to come that are no tasks. Arguments are the tasks' to judge.
No reason may repeat what the message says.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import MAXYEAR, datetime
from typing import Any, Final
from uuid import uuid4

import orjson

from bridge_tasks.correlation import PATTERN
from bridge_tasks.errors import MessageRefused
from bridge_tasks.messages import HEADER, ITEM, ITEM_SHAPE, JOB, PART, SUBJECT, WAITS

_NAME = re.compile(r"[\w.:<>-]{1,200}")
_ID = re.compile(r"[\w.:@+=/|-]{1,200}")
_PART = re.compile(r"[\w.:@+=/|-]{0,200}")
_NO_QUEUES = ("bridge:", "_kombu.", "unacked", "celery-task-meta-")
_LONGEST_TEXT = 16_384
_MANY = 1_000_000
_BODY_PARTS = 3
_LIMITS = 2

Check = Callable[[Any], bool]

_ORDER: Final[Mapping[str, type]] = {
    "method": str,
    "arguments": dict,
    "destination": list,
    "pattern": str,
    "matcher": str,
    "ticket": str,
    "reply_to": dict,
}
"""The parts of an order; none has to be there."""

_QUESTIONS: Final = frozenset(
    (
        *("active", "active_queues", "clock", "conf", "enable_events", "hello", "paused_queues", "ping"),
        *("query_task", "registered", "report", "reserved", "revoked", "scheduled", "stats"),
    )
)
"""Orders that change nothing; or, `enable_events`, nothing but that Flower hears of it."""
_ANSWERS: Final = "reply.celery.pidbox"


def envelope(raw: bytes, limit: int) -> dict[str, Any]:
    """Read what lies in a queue or comes over a channel, and give it a delivery tag of its own.

    The tag is what a worker holds a message by: one that a stranger chose could be that of another message.

    Raises:
        MessageRefused: it is no message.
    """
    if len(raw) > limit:
        raise MessageRefused("message", f"is larger than {limit} bytes")
    try:
        message = orjson.loads(raw)
    except (orjson.JSONDecodeError, RecursionError):
        raise MessageRefused("message", "is not JSON, or too deep") from None
    vet_envelope(message)
    message["properties"]["delivery_tag"] = str(uuid4())
    return message  # type: ignore[no-any-return] # checked above


def vet_envelope(message: Any) -> None:
    """Look whether something is a message at all.

    Raises:
        MessageRefused: it is not.
    """
    if not isinstance(message, dict):
        raise MessageRefused("message", "is not an object")
    _check("headers", message.get("headers"), lambda told: isinstance(told, dict))
    properties = message.get("properties")
    _check("properties", properties, lambda told: isinstance(told, dict))
    for name, check in _PROPERTIES.items():
        _check(f"properties.{name}", properties.get(name), check)  # type: ignore[union-attr] # checked above
    _check("body", message.get("body"), _is_text)
    for name in ("content-type", "content-encoding"):
        _check(name, message.get(name), _is_text)


def vet_order(message: Any, *, order: bool = False, questions: bool = False) -> None:
    """Look whether what came over a channel, an order or an event, is something that Celery can read.

    An order whose parts are of the wrong kind makes Celery open its channel anew, and take no more tasks.

    Args:
        message: what came.
        order: whether it is an order.
        questions: whether orders may only ask.

    Raises:
        MessageRefused: it is not, or is an order that changes something.
    """
    vet_envelope(message)
    _check("headers.compression", message["headers"].get("compression"), lambda told: told is None)
    body = _body_of(message)
    _check("body", body, lambda told: isinstance(told, dict if order else dict | list))
    if order:
        for name, kind in _ORDER.items():
            if not isinstance(body.get(name), kind | None):
                raise MessageRefused(f"body.{name}", "is not what an order may hold there")
        if questions:
            _vet_question(body)


def _vet_question(body: Mapping[str, Any]) -> None:
    if body.get("method") not in _QUESTIONS:
        raise MessageRefused("body.method", "changes something: BRIDGE_WORKER__ORDERS lets workers be asked only")
    if (body.get("arguments") or {}).get("revoked"):  # a worker that greets others tells them what is revoked
        raise MessageRefused("body.arguments", "revokes tasks: BRIDGE_WORKER__ORDERS lets workers be asked only")
    if (body.get("reply_to") or {}).get("exchange", _ANSWERS) != _ANSWERS:
        raise MessageRefused("body.reply_to", "is no place for answers")


def vet_task(message: Mapping[str, Any]) -> None:
    """Look whether a message asks for a task, in a way that Celery can read.

    Raises:
        MessageRefused: it does not.
    """
    headers = message["headers"]
    for name, check in _HEADERS.items():
        _check(f"headers.{name}", headers.get(name), check)
    _vet_body(_body_of(message))


def _body_of(message: Mapping[str, Any]) -> Any:
    """Read a body, which must be small and plain enough to be read by anybody."""
    if message.get("content-type") != "application/json":
        raise MessageRefused("content-type", "is not application/json")
    if str(message.get("content-encoding")).lower() != "utf-8":
        raise MessageRefused("content-encoding", "is not utf-8")
    body = message.get("body") or ""
    try:
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body, validate=True)
        return orjson.loads(body)
    except (binascii.Error, ValueError, RecursionError):
        raise MessageRefused("body", "is not JSON, or too deep") from None


def _vet_body(read: Any) -> None:
    if not isinstance(read, list) or len(read) != _BODY_PARTS:
        raise MessageRefused("body", "is not [arguments, keywords, steps to come]")
    arguments, keywords, embedded = read
    _check("body.arguments", arguments, lambda told: isinstance(told, list))
    _check("body.keywords", keywords, lambda told: isinstance(told, dict))
    _check("body.embed", embedded, lambda told: isinstance(told, dict))
    for name in ("callbacks", "errbacks", "chain"):
        _check(f"body.{name}", embedded.get(name), _are_signatures)
    _check("body.chord", embedded.get("chord"), lambda told: told is None or _is_signature(told))


def _check(field: str, value: Any, check: Check) -> None:
    if not check(value):
        raise MessageRefused(field, "is not what a message may hold there")


def _is_text(told: Any) -> bool:
    return told is None or isinstance(told, str)


def _is_short(told: Any) -> bool:
    return told is None or (isinstance(told, str) and len(told) <= _LONGEST_TEXT)


def _is_count(told: Any) -> bool:
    return told is None or (type(told) is int and 0 <= told <= _MANY)


def _is_flag(told: Any) -> bool:
    return told is None or isinstance(told, bool)


def is_id(told: Any) -> bool:
    """Tell whether something can be the id of a task, or is none."""
    return told is None or (isinstance(told, str) and _ID.fullmatch(told) is not None)


def _is_time(told: Any) -> bool:
    """Whether it is a moment: ISO 8601, as Celery writes it, in a year that a clock can have."""
    if told is None:
        return True
    try:
        return isinstance(told, str) and 1 < datetime.fromisoformat(told).year < MAXYEAR
    except ValueError:
        return False


def _are_limits(told: Any) -> bool:
    """Whether it is two numbers of seconds, the hard limit and the soft one."""
    return told is None or (
        isinstance(told, list)
        and len(told) == _LIMITS
        and all(limit is None or (type(limit) in (int, float) and 0 <= limit <= _MANY) for limit in told)
    )


def _is_signature(told: Any) -> bool:
    return (
        isinstance(told, dict)
        and isinstance(told.get("task"), str)
        and isinstance(told.get("args", []), list | type(None))
        and all(isinstance(told.get(name, {}), dict | type(None)) for name in ("kwargs", "options"))
    )


def _are_signatures(told: Any) -> bool:
    return told is None or (isinstance(told, list) and all(map(_is_signature, told)))


def _is_delivery(told: Any) -> bool:
    """Whether it says where a message goes back to if its worker dies: a queue, and no other key of Redis."""
    return isinstance(told, dict) and all(
        name in told and _is_short(told[name]) and not str(told[name]).startswith(_NO_QUEUES)
        for name in ("exchange", "routing_key")
    )


def _fits(pattern: re.Pattern[str]) -> Check:
    return lambda told: told is None or (isinstance(told, str) and pattern.fullmatch(told) is not None)


_PROPERTIES: Final[Mapping[str, Check]] = {
    "delivery_info": _is_delivery,
    "delivery_tag": _is_text,
    "body_encoding": lambda told: told in (None, "base64"),
    "correlation_id": is_id,
    "reply_to": _is_short,
    "priority": lambda told: told is None or type(told) in (int, float),
}

_HEADERS: Final[Mapping[str, Check]] = {
    "task": lambda told: isinstance(told, str) and _NAME.fullmatch(told) is not None,
    "id": lambda told: isinstance(told, str) and _ID.fullmatch(told) is not None,
    "compression": lambda told: told is None,
    "root_id": is_id,
    "parent_id": is_id,
    "group": is_id,
    "group_index": _is_count,
    "retries": _is_count,
    "replaced_task_nesting": _is_count,
    "timelimit": _are_limits,
    "eta": _is_time,
    "expires": _is_time,
    "ignore_result": _is_flag,
    "redelivered": _is_flag,
    "argsrepr": _is_short,
    "kwargsrepr": _is_short,
    "shadow": _is_short,
    "origin": _is_short,
    "lang": _is_short,
    "stamped_headers": lambda told: told is None or (isinstance(told, list) and all(map(_is_short, told))),
    "stamps": lambda told: told is None or isinstance(told, dict),
    HEADER: _fits(PATTERN),
    JOB: is_id,
    PART: _fits(_PART),
    ITEM: lambda told: told in (None, "") or (isinstance(told, str) and ITEM_SHAPE.fullmatch(told) is not None),
    SUBJECT: _is_short,
    WAITS: _is_count,
}
"""What Celery reads of a message, and we: everything else is carried along and means nothing."""
