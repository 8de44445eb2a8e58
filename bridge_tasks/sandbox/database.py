"""The SQLite file behind one metadata service: one connection behind one lock, so any thread may come.

What belongs together is written in one transaction: a process that is killed leaves all of it or nothing.
"""

import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Database:
    """A connection to `path`, or to a database in memory that lives as long as this."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        # A killed process loses nothing in this mode; only a power cut could, and this is a sandbox.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=OFF")
        # Closed with the last reference to the database, since an application may be served more than once.
        weakref.finalize(self, self._connection.close)

    def define(self, schema: str) -> None:
        """Create what is not there yet."""
        with self._lock:
            self._connection.executescript(schema)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for single statements."""
        with self._lock:
            yield self._connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction; no other process writes meanwhile. An error undoes it."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
