"""Answers kept for a while, so that the same question is asked once.

An entry is stored as JSON bytes: what a caller does to a result never reaches the cache. Nothing here decides
what is worth keeping; the client does (a degraded answer is not).
"""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import orjson

from bridge_tasks.errors import InvalidRequest

T = TypeVar("T")

DEFAULT_MAX_ENTRIES = 1000
DEFAULT_EVICTION_RATIO = 0.2
"""Both from client-guide.md, "Caching Strategy"."""


class CacheEntry(Generic[T]):
    """One cached answer. `ttl` is in seconds; the clock is monotonic."""

    __slots__ = ("_clock", "created_at", "data", "hits", "last_access", "ttl")

    def __init__(self, data: T, ttl: float = 300, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.data = data
        self.ttl = ttl
        self.hits = 0
        self.created_at = self.last_access = clock()

    def is_expired(self) -> bool:
        """Say whether its time is over."""
        return self._clock() - self.created_at > self.ttl

    def access(self) -> T:
        """Return the data and count the hit."""
        self.hits += 1
        self.last_access = self._clock()
        return self.data


class Cache(Protocol):
    """A store of JSON answers by key; coroutines, because it may be far away."""

    async def get(self, key: str) -> Any | None:
        """Return a copy of the answer, or None."""
        ...

    async def put(self, key: str, value: Any, ttl: float) -> None:
        """Keep `value` (plain JSON) for `ttl` seconds."""
        ...

    async def clear(self) -> None:
        """Forget everything."""
        ...

    def __len__(self) -> int: ...


class LocalCache:
    """A `Cache` in this process: bounded, evicting the least recently used share when it is full.

    Args:
        max_entries: size bound.
        eviction_ratio: share dropped at once when the bound is passed; at least one entry.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        max_entries: int = DEFAULT_MAX_ENTRIES,
        eviction_ratio: float = DEFAULT_EVICTION_RATIO,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_entries = max_entries
        self.eviction_ratio = eviction_ratio
        self._clock = clock
        self._entries: dict[str, CacheEntry[bytes]] = {}  # in order of last access
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: str) -> Any | None:
        """Return a copy of the answer, or None."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None or entry.is_expired():
                return None
            self._entries[key] = entry
            packed = entry.access()
        return orjson.loads(packed)

    async def put(self, key: str, value: Any, ttl: float) -> None:
        """Keep `value` for `ttl` seconds; one that cannot be packed (a number beyond 64 bits, say) is let go."""
        try:
            entry = CacheEntry(orjson.dumps(value), ttl, clock=self._clock)
        except orjson.JSONEncodeError:
            return
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = entry
            if len(self._entries) > self.max_entries:
                self._evict()

    async def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def _evict(self) -> None:
        share = max(1, int(len(self._entries) * self.eviction_ratio))
        for key in list(self._entries)[:share]:
            del self._entries[key]


class NullCache:
    """A `Cache` that keeps nothing: caching switched off."""

    def __len__(self) -> int:
        return 0

    async def get(self, key: str) -> None:
        """Know nothing."""

    async def put(self, key: str, value: Any, ttl: float) -> None:
        """Keep nothing."""

    async def clear(self) -> None:
        """Have nothing to forget."""


def cache_key(endpoint: str, params: Mapping[str, Any] | None = None) -> str:
    """Name a question: SHA-256 (hex) over the endpoint and the canonical JSON of its parameters.

    Raises:
        InvalidRequest: a parameter cannot be JSON.
    """
    try:
        canonical = orjson.dumps([endpoint, params or {}], option=orjson.OPT_SORT_KEYS, default=str)
    except orjson.JSONEncodeError:
        raise InvalidRequest("params", "hold a number or text that JSON cannot carry") from None
    return hashlib.sha256(canonical).hexdigest()
