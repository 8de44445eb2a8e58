"""What was really done: one line for each stamp that was made and answered as new. Chaos tests ask it.

An answer that was given again, for a key that had been used, is no line. A client that sends the same stamp twice
without keys has two: this log judges clients, it forgives nothing.
"""

import json
import sqlite3
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from bridge_tasks.sandbox.database import Database

KEPT = 1_000_000
"""The last effects; how many before them were forgotten is told."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS effects (
    file_hash TEXT NOT NULL,
    file_path TEXT NOT NULL,
    namespace TEXT NOT NULL,
    correlation_id TEXT,
    at TEXT NOT NULL
);
"""


def note(
    connection: sqlite3.Connection,
    file_hash: str,
    file_path: str,
    namespace: str,
    correlation_id: str | None,
    kept: int = KEPT,
) -> None:
    """Write a line, in the transaction of the stamp itself."""
    written = connection.execute(
        "INSERT INTO effects VALUES (?, ?, ?, ?, ?)",
        (file_hash, file_path, namespace, correlation_id, datetime.now(UTC).isoformat()),
    )
    newest = written.lastrowid or 0
    if newest > kept:
        connection.execute("DELETE FROM effects WHERE rowid <= ?", (newest - kept,))


class EffectLog:
    """The log of one service, for reading."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def totals(self) -> dict[str, int]:
        """Return how many stamps were `performed`, of how many `files`, how many of these `over` once.

        A file is a path and a hash. `forgotten` lines were too many to be kept.
        """
        with self._database.reading() as connection:
            performed, files, over = connection.execute(
                "SELECT coalesce(sum(times), 0), count(*), coalesce(sum(times > 1), 0)"
                " FROM (SELECT count(*) AS times FROM effects GROUP BY file_path, file_hash)"
            ).fetchone()
            (first,) = connection.execute("SELECT coalesce(min(rowid), 1) FROM effects").fetchone()
        return {"performed": performed, "files": files, "over": over, "forgotten": first - 1}

    def files(self, over: int = 0, limit: int = -1, correlation_id: str | None = None) -> list[dict[str, Any]]:
        """Return the files stamped more than `over` times, in the order in which they were stamped first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT file_path, file_hash, count(*) AS times, min(at) AS first_at, max(at) AS last_at,"
                " json_group_array(DISTINCT namespace) AS namespaces,"
                " json_group_array(DISTINCT correlation_id) AS correlation_ids"
                " FROM effects WHERE ?1 IS NULL OR correlation_id = ?1"
                " GROUP BY file_path, file_hash HAVING times > ?2 ORDER BY min(rowid) LIMIT ?3",
                (correlation_id, over, limit),
            ).fetchall()
        lists = ("namespaces", "correlation_ids")
        return [{**dict(row), **{name: json.loads(row[name]) for name in lists}} for row in rows]

    def clear(self) -> None:
        """Forget everything."""
        with self._database.writing() as connection:
            connection.execute("DELETE FROM effects")

    def router(self) -> APIRouter:
        """Return the route by which it is read, and cleared."""
        router = APIRouter()

        # Plain functions, which FastAPI runs in threads: a long list must not hold up the service.
        @router.get("/effects")
        def show(over: int = 0, limit: int = -1, correlation_id: str | None = None) -> Response:
            return JSONResponse({**self.totals(), "effects": self.files(over, limit, correlation_id)})

        @router.delete("/effects")
        def forget() -> Response:
            self.clear()
            return JSONResponse({**self.totals(), "effects": []})

        return router
