"""Stamps at rest, in SQLite: one row per file hash.

One connection behind one lock, so it may be called from any thread. Never overwrites a stamp.
"""

import json
import sqlite3
import threading
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

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


class StampStore:
    """The stamps of one service."""

    def __init__(self, database: Path | str = ":memory:") -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        # A killed process loses nothing in this mode; only a power cut could, and this is a sandbox.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.executescript(_SCHEMA)
        # Closed with the last reference to the store, since an application may be served more than once.
        weakref.finalize(self, self._connection.close)

    def find(self, file_hash: str) -> dict[str, Any] | None:
        """Return the row for `file_hash` as the wire shows it, or None."""
        with self._lock:
            return self._find(file_hash)

    def find_or_add(self, stamp: NewStamp) -> dict[str, Any]:
        """Return the row for this hash, written now if there was none.

        Raises:
            ValueError: a new row without a file path, or stamp data that is not JSON.
        """
        with self._lock:
            return self._find(stamp.file_hash) or self._add(stamp)

    def add(self, stamp: NewStamp) -> dict[str, Any]:
        """Write a new row.

        Raises:
            AlreadyStamped: there is one for this hash.
            ValueError: see `find_or_add`.
        """
        with self._lock:
            return self._add(stamp)

    def page(self, namespace: str, limit: int, offset: int) -> tuple[int, list[dict[str, Any]]]:
        """Return how many stamps `namespace` has, and those from `offset` on, oldest first."""
        with self._lock:
            (total,) = self._connection.execute(
                "SELECT count(*) FROM stamps WHERE namespace = ?", (namespace,)
            ).fetchone()
            rows = self._connection.execute(
                "SELECT * FROM stamps WHERE namespace = ? ORDER BY created_at, id LIMIT ? OFFSET ?",
                (namespace, limit, offset),
            ).fetchall()
        return total, [_row_on_the_wire(row) for row in rows]

    def count(self) -> int:
        """Return how many stamps there are in all."""
        with self._lock:
            (total,) = self._connection.execute("SELECT count(*) FROM stamps").fetchone()
        return int(total)

    def _find(self, file_hash: str) -> dict[str, Any] | None:
        row = self._connection.execute("SELECT * FROM stamps WHERE file_hash = ?", (file_hash,)).fetchone()
        return None if row is None else _row_on_the_wire(row)

    def _add(self, stamp: NewStamp) -> dict[str, Any]:
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
            (row,) = self._connection.execute(
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
