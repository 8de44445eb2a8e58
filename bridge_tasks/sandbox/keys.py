"""Idempotency keys: what was brought about under which, so that a request sent again brings about nothing.

A key is kept in the transaction that does the work. So there is no "in progress": of two requests with one key,
one does the work, and the other finds it done. Refused requests leave no key behind.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from blake3 import blake3

ITEM_FIELD = "idempotency_key"
"""The field by which an item of a batch names its own."""

KEPT = 200_000
"""The last keys; those before are forgotten."""

LONGEST = 255

SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    stamp_id TEXT,
    stamp TEXT
);
"""


class KeyReused(ValueError):  # noqa: N818 - a fact about the key, told like AlreadyStamped
    """The key was used before, with another request."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for a stamp: under which key, if any, with what request, and for which correlation id.

    `heeded` is false for a service that knows no keys.
    """

    key: str | None = None
    fingerprint: str = ""
    correlation_id: str | None = None
    heeded: bool = True

    def item(self, index: int, item: Mapping[str, Any]) -> "Asked":
        """Return who asks for one item of a batch: its own key wins over the batch's with its place."""
        own = item.get(ITEM_FIELD) if self.heeded else None
        if own is not None and not usable(own):
            raise ValueError(f"{ITEM_FIELD} must be 1 to {LONGEST} printable characters")
        if own is None and self.key is None:
            return self
        key = own or f"{self.key} {index}"
        what = {field: item[field] for field in item if field not in ("id", ITEM_FIELD)}
        return replace(self, key=key, fingerprint=fingerprint(json.dumps(what, sort_keys=True).encode()))


@dataclass(frozen=True, slots=True)
class Done:
    """What was done under a key: the id of the row, and the text of the stamp that was answered."""

    stamp_id: str | None
    stamp: str | None


def done(connection: sqlite3.Connection, asked: Asked) -> Done | None:
    """Return what was done under the key.

    Raises:
        KeyReused: it was for another request.
    """
    if asked.key is None:
        return None
    row = connection.execute("SELECT * FROM keys WHERE key = ?", (asked.key,)).fetchone()
    if row is None:
        return None
    if row["fingerprint"] != asked.fingerprint:
        raise KeyReused("the idempotency key was used before, with another request")
    return Done(row["stamp_id"], row["stamp"])


def keep(connection: sqlite3.Connection, asked: Asked, done: Done, kept: int = KEPT) -> None:
    """Keep what was done under the key, and the last `kept` keys in all."""
    if asked.key is None:
        return
    written = connection.execute(
        "INSERT INTO keys VALUES (?, ?, ?, ?)", (asked.key, asked.fingerprint, done.stamp_id, done.stamp)
    )
    newest = written.lastrowid or 0
    if newest > kept:
        connection.execute("DELETE FROM keys WHERE rowid <= ?", (newest - kept,))


def usable(key: Any) -> bool:
    """Tell whether this can be a key."""
    return isinstance(key, str) and 0 < len(key) <= LONGEST and key.isascii() and key.isprintable()


def fingerprint(body: bytes) -> str:
    """Return by what two requests are told apart."""
    return str(blake3(body).hexdigest())
