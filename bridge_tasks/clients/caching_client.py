"""What a client has beyond `base_client` where its answers are kept: the cache, its counts, and making it void.

It knows no service. What is worth keeping, and which refusal is an answer in itself, the client of a service says;
when to ask and when to wait is `cache.answering`'s.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from bridge_tasks import events
from bridge_tasks.cache import (
    DEFAULT_EVICTION_RATIO,
    DEFAULT_MAX_ENTRIES,
    Answering,
    Cache,
    CacheStats,
    LocalCache,
    NullCache,
    Question,
    cache_key,
)
from bridge_tasks.cache.answering import Asking
from bridge_tasks.clients.base_client import BaseServiceClient, data_of
from bridge_tasks.errors import ClientError
from bridge_tasks.resilience.policy.caching import EVERYTHING, CacheRules, mark_of_prefix, mark_of_tag

T = TypeVar("T")


class CachingServiceClient(BaseServiceClient):
    """A client of one service that keeps its answers.

    Args beyond `BaseServiceClient`'s:
        enable_cache: whether answers are kept.
        cache_ttl: seconds that they are kept.
        cache_max_size: entries in the default cache.
        cache_eviction_ratio: share dropped when it is full.
        cache: another store to keep them in.
        cache_rules: how they age, in the default cache and in any other.
    """

    DEFAULT_CACHE_MAX_SIZE = DEFAULT_MAX_ENTRIES
    DEFAULT_CACHE_EVICTION_RATIO = DEFAULT_EVICTION_RATIO

    def __init__(
        self,
        *arguments: Any,
        enable_cache: bool = True,
        cache_ttl: float = 300,
        cache_max_size: int = DEFAULT_CACHE_MAX_SIZE,
        cache_eviction_ratio: float = DEFAULT_CACHE_EVICTION_RATIO,
        cache: Cache | None = None,
        cache_rules: CacheRules | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.enable_cache = enable_cache
        self.cache_ttl = cache_ttl
        self.cache_max_size = cache_max_size
        self.cache_eviction_ratio = cache_eviction_ratio
        rules = cache_rules or CacheRules()
        if not enable_cache:
            cache = NullCache()
        elif cache is None:
            cache = LocalCache(
                cache_max_size,
                cache_eviction_ratio,
                rules=rules,
                clock=self._bottom.clock,
                chance=self._bottom.chance,
            )
        self._cache: Cache = cache
        self._answering = Answering(cache, rules, self._bottom, patience=self.timeout, deadline=self.deadline)
        self._cache_hits = 0
        self._cache_misses = 0

    async def clear_cache(self) -> None:
        """Forget every answer, and the hit counts."""
        await self._cache.void(EVERYTHING)
        self._cache_hits = self._cache_misses = 0

    async def invalidate_cache(self, *, tag: str | None = None, prefix: str | None = None) -> bool:
        """Make void what was answered under a tag, and what was answered about anything beginning with `prefix`.

        Answers that are being asked for at this moment are not kept either. Tags are those given with a question,
        and `operation:` with the name of the method.

        Returns:
            Whether everybody who shares the cache was told.
        """
        marks = [mark_of_tag(tag)] if tag is not None else []
        marks += [mark_of_prefix(prefix)] if prefix is not None else []
        return all([await self._cache.void(mark) for mark in marks])

    async def fleet_cache_stats(self) -> CacheStats:
        """Return how the cache does over all processes that share it."""
        return await self._cache.stats()

    async def close(self) -> None:
        """Close the pool, and tell the shared cache what was counted here. Idempotent."""
        await super().close()
        await self._cache.close()

    def get_cache_stats(self) -> dict[str, Any]:
        """Return how the cache does for this client: `hit_rate` is hits per look-up, 0..1."""
        asked = self._cache_hits + self._cache_misses
        return {
            "enabled": self.enable_cache,
            "cache_size": len(self._cache),
            "cache_max_size": self.cache_max_size,
            "cache_hits": self._cache_hits,
            "cache_misses": self._cache_misses,
            "hit_rate": self._cache_hits / asked if asked else 0.0,
            "ttl_seconds": self.cache_ttl,
            "eviction_ratio": self.cache_eviction_ratio,
        }

    def get_metrics(self) -> dict[str, Any]:
        """Return the base counts, and the cache's under `cache`."""
        return {**super().get_metrics(), "cache": self.get_cache_stats()}

    @abstractmethod
    def _is_worth_keeping(self, data: dict[str, Any]) -> bool:
        """Say whether an answer's data are a real answer, not an emergency's."""

    @abstractmethod
    def _is_final(self, operation: str, error: ClientError) -> bool:
        """Say whether a refusal is itself an answer to keep for a while."""

    async def _cached(
        self,
        operation: str,
        endpoint: str,
        question: dict[str, Any],
        failure: str,
        read: Callable[[dict[str, Any]], T],
        *,
        subject: str,
        tags: Sequence[str],
        correlation_id: UUID | str | None,
        use_cache: bool,
    ) -> T:
        """Answer from the cache, or ask and keep what is worth keeping: what can be read, and no emergency."""

        async def ask() -> dict[str, Any]:
            return data_of(
                await self._ask(
                    operation,
                    "POST",
                    endpoint,
                    failure=failure,
                    read=True,
                    correlation_id=correlation_id,
                    json=question,
                )
            )

        def looked(hit: bool) -> None:
            self._cache_hits += hit
            self._cache_misses += not hit
            events.emit(events.CacheAnswered(self.service_name, operation, hit))

        asking = Asking(
            self.service_name,
            operation,
            Question(self._get_cache_key(endpoint, question), subject, (f"operation:{operation}", *tags)),
            ask,
            self._is_worth_keeping,
            partial(self._is_final, operation),
        )
        if use_cache and self.enable_cache:
            return await self._answering.answer(asking, read, self.cache_ttl, looked)
        return await self._answering.ask(asking, read, self.cache_ttl)

    def _get_cache_key(self, endpoint: str, params: Mapping[str, Any] | None = None) -> str:
        """Name a question, whatever the order of its parameters."""
        return cache_key(endpoint, params)
