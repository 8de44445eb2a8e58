"""The connections of the blocking bottom: a pool for each address, so that a call looks at those of one only.

httpcore asks the system about every idle connection of a pool, twice in each request: with one pool for all, each
replica would make the calls to all others dearer. A pool nobody has used for a while is closed, since an address
that has left is never asked for again. Thread-safe. Nothing here knows what is sent.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import httpcore

from bridge_tasks.resilience.transport.deadline import Clock

Address = tuple[bytes, bytes, int | None]
"""Scheme, host and port."""

UNUSED_SECONDS = 60.0
"""After so long a pool is closed, if none of its connections is at work."""


@dataclass(slots=True)
class _Used:
    pool: httpcore.ConnectionPool
    at: float


class Pools:
    """Pools by address.

    Args:
        connect: opens a pool; its limits hold for one address.
        clock: seconds, monotonic.
    """

    def __init__(self, connect: Callable[[], httpcore.ConnectionPool], clock: Clock) -> None:
        self._connect = connect
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Address, _Used] = {}
        self._tidy_at = clock() + UNUSED_SECONDS

    def of(self, address: Address) -> httpcore.ConnectionPool:
        """Return the pool of an address, opened now if there is none."""
        now = self._clock()
        unused: list[httpcore.ConnectionPool] = []
        with self._lock:
            known = self._known.get(address)
            if known is None:
                known = self._known[address] = _Used(self._connect(), now)
            known.at = now
            if now >= self._tidy_at:
                unused = self._taken_out(now)
        for pool in unused:
            pool.close()
        return known.pool

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            known, self._known = self._known, {}
        for used in known.values():
            used.pool.close()

    def _taken_out(self, now: float) -> list[httpcore.ConnectionPool]:
        self._tidy_at = now + UNUSED_SECONDS
        idle = [
            address for address, used in self._known.items() if now - used.at >= UNUSED_SECONDS and _rests(used)
        ]
        return [self._known.pop(address).pool for address in idle]


def _rests(used: _Used) -> bool:
    return all(connection.is_idle() or connection.is_closed() for connection in used.pool.connections)
