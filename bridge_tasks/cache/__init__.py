"""Answers kept for a while, so that the same question is asked once: by one client, or by the whole fleet.

Nothing here decides what is worth keeping; the client does (a degraded answer is not).
"""

from bridge_tasks.cache.answering import Answering
from bridge_tasks.cache.entry import CacheEntry, cache_key
from bridge_tasks.cache.local import DEFAULT_EVICTION_RATIO, DEFAULT_MAX_ENTRIES, LocalCache, NullCache
from bridge_tasks.cache.port import Cache, CacheStats, Found, Kept, Question
from bridge_tasks.cache.shared import RedisCache

__all__ = [
    "DEFAULT_EVICTION_RATIO",
    "DEFAULT_MAX_ENTRIES",
    "Answering",
    "Cache",
    "CacheEntry",
    "CacheStats",
    "Found",
    "Kept",
    "LocalCache",
    "NullCache",
    "Question",
    "RedisCache",
    "cache_key",
]
