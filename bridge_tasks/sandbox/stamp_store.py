"""Stamps at rest, in SQLite: one row per file hash. May be called from any thread; never overwrites a stamp.

Whatever is kept of one stamp is kept at once: its row, the idempotency key, the line in the log of effects.
"""

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from bridge_tasks.sandbox import effect_log, keys
from bridge_tasks.sandbox.database import Database
from bridge_tasks.sandbox.keys import Asked, Done

DEFAULT_NAMESPACE = "omninode.services.metadata"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stamps (
    id TEXT PRIMARY KEY,
    file_hash TEXT NOT NULL UNIQUE,
    file_path TEXT NOT NULL,
    file_size INTEGER NOT NULL,
    content_type TEXT,
    stamp_data TEXT NOT NULL,
    protocol_version TEXT NOT NULL,
    namespace TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS stamps_by_namespace ON stamps (namespace, created_at, id);
"""


class AlreadyStamped(ValueError):  # noqa: N818 - a fact about the hash; the batch endpoint reports it per item
    """A row with this hash exists, and the caller asked for a new one."""


@dataclass(frozen=True, slots=True)
class NewStamp:
    """A row to be written; `file_size` is in bytes and `stamp_data` must be plain JSON."""

    file_hash: str
    file_path: str | None
    file_size: int
    content_type: str | None
    stamp_data: dict[str, Any]
    namespace: str
    protocol_version: str = "1.0"


@dataclass(frozen=True, slots=True)
class Kept:
    """A stamp that is kept: its row as the wire shows it, and the text to answer, None where there is none."""

    row: dict[str, Any]
    stamp: str | None


class StampStore:
    """The stamps of one service."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.define(_SCHEMA + keys.SCHEMA + effect_log.SCHEMA)

    def find(self, file_hash: str) -> dict[str, Any] | None:
        """Return the row for `file_hash` as the wire shows it, or None."""
        with self._database.reading() as connection:
            return _find(connection, file_hash)

    def find_or_add(self, stamp: NewStamp, asked: Asked) -> Kept:
        """Keep a stamp under its hash, unless there is one; what was done under the same key is not done again.

        Raises:
            KeyReused: the key was used with another request.
            ValueError: a new row without a file path, or stamp data that is not JSON.
        """
        return self._keep(stamp, asked, anew=False)

    def add(self, stamp: NewStamp, asked: Asked) -> Kept:
        """Keep a new stamp; what was done under the same key is not done again.

        Raises:
            AlreadyStamped: there is one for this hash.
            ValueError: see `find_or_add`.
        """
        return self._keep(stamp, asked, anew=True)

    def claim(self, asked: Asked) -> None:
        """Keep the key of a whole batch; what was done is kept item by item.

        Raises:
            KeyReused: it was used with another request.
        """
        with self._database.writing() as connection:
            if keys.done(connection, asked) is None:
                keys.keep(connection, asked, Done(None, None))

    def _keep(self, stamp: NewStamp, asked: Asked, *, anew: bool) -> Kept:
        text = stamp.stamp_data.get("stamp")
        with self._database.writing() as connection:
            former = keys.done(connection, asked)
            if former is not None:
                found = connection.execute("SELECT * FROM stamps WHERE id = ?", (former.stamp_id,)).fetchone()
                return Kept(_row_on_the_wire(found), former.stamp)
            row = (None if anew else _find(connection, stamp.file_hash)) or _add(connection, stamp)
            keys.keep(connection, asked, Done(row["id"], text))
            effect_log.note(
                connection, stamp.file_hash, stamp.file_path or "", stamp.namespace, asked.correlation_id
            )
        return Kept(row, text)

    def page(self, namespace: str, limit: int, offset: int) -> tuple[int, list[dict[str, Any]]]:
        """Return how many stamps `namespace` has, and those from `offset` on, oldest first."""
        with self._database.reading() as connection:
            (total,) = connection.execute(
                "SELECT count(*) FROM stamps WHERE namespace = ?", (namespace,)
            ).fetchone()
            rows = connection.execute(
                "SELECT * FROM stamps WHERE namespace = ? ORDER BY created_at, id LIMIT ? OFFSET ?",
                (namespace, limit, offset),
            ).fetchall()
        return total, [_row_on_the_wire(row) for row in rows]

    def count(self) -> int:
        """Return how many stamps there are in all."""
        with self._database.reading() as connection:
            (total,) = connection.execute("SELECT count(*) FROM stamps").fetchone()
        return int(total)


def _find(connection: sqlite3.Connection, file_hash: str) -> dict[str, Any] | None:
    row = connection.execute("SELECT * FROM stamps WHERE file_hash = ?", (file_hash,)).fetchone()
    return None if row is None else _row_on_the_wire(row)


def _add(connection: sqlite3.Connection, stamp: NewStamp) -> dict[str, Any]:
    if not stamp.file_path:
        raise ValueError("file_path must not be empty")
    values = (
        str(uuid4()),
        stamp.file_hash,
        stamp.file_path,
        stamp.file_size,
        stamp.content_type,
        json.dumps(stamp.stamp_data, allow_nan=False),
        stamp.protocol_version,
        stamp.namespace,
        datetime.now(UTC).isoformat(),
    )
    try:
        (row,) = connection.execute(
            "INSERT INTO stamps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *", values
        ).fetchall()
    except sqlite3.IntegrityError as error:
        raise AlreadyStamped("file_hash is already stamped") from error
    return _row_on_the_wire(row)


def _row_on_the_wire(row: sqlite3.Row) -> dict[str, Any]:
    """Show a row as `GET /stamp/{hash}` does.

    The top-level namespace is always the default one; the true one is in `stamp_data`, as in the known service.
    """
    stamp_data = json.loads(row["stamp_data"])
    return {
        **{key: row[key] for key in ("id", "file_hash", "file_path", "file_size", "content_type")},
        "stamp_data": stamp_data,
        "protocol_version": row["protocol_version"],
        "intelligence_data": {},
        "version": 1,
        "op_id": None,
        "namespace": DEFAULT_NAMESPACE,
        "metadata_version": "0.1",
        "created_at": row["created_at"],
        "updated_at": row["created_at"],
    }
