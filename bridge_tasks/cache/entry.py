"""What a question is called, and the guide's `CacheEntry`."""

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import orjson

from bridge_tasks.errors import InvalidRequest

T = TypeVar("T")


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
