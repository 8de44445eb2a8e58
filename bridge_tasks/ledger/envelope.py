"""A message as it lies in a queue of the Redis transport. Pure: it reads and rewrites, it sends nothing.

Only headers and properties are looked at; the body stays the text that it is.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

import orjson

from bridge_tasks.signing import lasting

PRIORITY_STEPS = (0, 3, 6, 9)
PRIORITY_SEPARATOR = "\x06\x16"
"""kombu's: a queue is one list per step, and the first one has the queue's own name."""

JOINED = "x-bridge-joined"
"""Marks what a chord's header waits for: once one has failed, the results of the others are gone."""


_NAMESPACE = re.compile(r"[{,] ?'namespace': (['\"])(.*?)\1[,}]")


def namespace_in(summary: str) -> str:
    """Read the namespace in what is told of a task's arguments (`messages.summary`); empty where none is."""
    found = _NAMESPACE.search(summary)
    return found[2] if found else ""


def queue_keys(queue: str) -> list[str]:
    """Return the lists of a queue, one for each step of priority."""
    return [f"{queue}{PRIORITY_SEPARATOR}{step}" if step else queue for step in PRIORITY_STEPS]


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message: what kombu's Redis transport keeps in a list."""

    message: Mapping[str, Any]

    @classmethod
    def loads(cls, text: str | bytes) -> Self:
        """Read it; what is no message, which anybody may have put into a queue, is an empty one."""
        try:
            read = orjson.loads(text)
        except ValueError:
            read = {}
        return cls(read if isinstance(read, dict) else {})

    def dumps(self) -> str:
        """Write it."""
        return orjson.dumps(self.message).decode()

    @property
    def task_id(self) -> str | None:
        """Whose message it is; None for what is no task of Celery's."""
        told = self.message.get("headers")
        name = told.get("id") if isinstance(told, dict) else None
        return name if isinstance(name, str) else None

    @property
    def whole(self) -> bool:
        """Whether it has the parts that are read and rewritten here."""
        headers, properties = (self.message.get(name) for name in ("headers", "properties"))
        return (
            isinstance(headers, dict)
            and isinstance(properties, dict)
            and isinstance(properties.get("delivery_info", {}), dict)
            and isinstance(properties.get("priority") or 0, int | float)
        )

    @property
    def lasting(self) -> Mapping[str, Any]:
        """What of it stays the same, however often it is delivered."""
        parts = (self.message.get("headers"), self.message.get("properties"))
        return lasting(self.message) if all(isinstance(part, dict) for part in parts) else self.message

    @property
    def namespace(self) -> str:
        """Whose work it is about, where its arguments name one; as far as they are told at all."""
        told = self.message.get("headers")
        return namespace_in(str(told.get("kwargsrepr", ""))) if isinstance(told, dict) else ""

    def queue_key(self, queue: str) -> str:
        """Return the list of the queue that holds messages of this priority."""
        priority = self.message.get("properties", {}).get("priority") or 0
        return queue_keys(queue)[sum(step <= priority for step in PRIORITY_STEPS[1:])]

    def fresh(self, *, anew: bool = False) -> Self:
        """Return it with a delivery tag of its own, since the tag tells messages apart that workers hold.

        Args:
            anew: with its attempts counted from the start.
        """
        headers = dict(self.message["headers"])
        if anew:
            headers |= {"retries": 0, "eta": None, "expires": None}
            headers.pop("x-bridge-waits", None)
        properties = {**self.message["properties"], "delivery_tag": str(uuid4())}
        return type(self)({**self.message, "headers": headers, "properties": properties})

    def plain(self) -> Self:
        """Return it with its body as text, whichever transport kept it."""
        properties = dict(self.message["properties"])
        if properties.pop("body_encoding", None) != "base64":
            return self
        body = b64decode(self.message["body"]).decode(errors="replace")
        return type(self)({**self.message, "body": body, "properties": properties})

    def redelivered(self) -> Self:
        """Return it marked as one that a worker held before."""
        headers = {**self.message.get("headers", {}), "redelivered": True}
        properties = dict(self.message["properties"])
        properties["delivery_info"] = {**properties.get("delivery_info", {}), "redelivered": True}
        return type(self)({**self.message, "headers": headers, "properties": properties})
