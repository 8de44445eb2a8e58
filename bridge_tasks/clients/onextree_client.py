"""The client of OnexTree: intelligence, knowledge and the tree, cached where an answer is good.

An answer that the service itself made up in an emergency, and our own fallback, are marked `degraded` and never
cached. Only intelligence has a fallback: a stamp can do without it, a query cannot.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from pydantic import ValidationError

from bridge_tasks import events
from bridge_tasks.cache import (
    DEFAULT_EVICTION_RATIO,
    DEFAULT_MAX_ENTRIES,
    Cache,
    CacheEntry,
    LocalCache,
    NullCache,
    cache_key,
)
from bridge_tasks.clients.base_client import AsgiApp, BaseServiceClient, data_of
from bridge_tasks.errors import ClientError
from bridge_tasks.models.onextree import ConfidenceLevel, ConfidenceScore, IntelligenceResult
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig

T = TypeVar("T")

__all__ = ["AsyncOnexTreeClient", "CacheEntry", "ConfidenceLevel", "ConfidenceScore", "IntelligenceResult"]

_EMERGENCY_ANALYSES = ("minimal", "error_fallback")
"""What the service calls an answer that it gave without a tree, or after a crash, at HTTP 200."""


class AsyncOnexTreeClient(BaseServiceClient):
    """Ask OnexTree.

    Every method takes `correlation_id` (a UUID or text), by default the one bound to the context, and raises
    `ClientError` for a refusal, `ServiceUnavailableError` for an outage, `CircuitBreakerError` while the circuit
    is open; `get_intelligence` falls back instead, unless told not to.

    Args beyond `BaseServiceClient`'s:
        enable_cache: whether answers are kept.
        cache_ttl: seconds that they are kept.
        cache_max_size: entries in the default cache.
        cache_eviction_ratio: share dropped when it is full.
        cache: another store to keep them in.
    """

    DEFAULT_CACHE_MAX_SIZE = DEFAULT_MAX_ENTRIES
    DEFAULT_CACHE_EVICTION_RATIO = DEFAULT_EVICTION_RATIO

    def __init__(
        self,
        base_url: str | None = "http://192.168.86.200:8058",
        timeout: float = 30.0,
        max_retries: int = 3,
        enable_cache: bool = True,
        cache_ttl: float = 300,
        cache_max_size: int = DEFAULT_CACHE_MAX_SIZE,
        cache_eviction_ratio: float = DEFAULT_CACHE_EVICTION_RATIO,
        circuit_breaker_config: CircuitBreakerConfig | None = None,
        app: AsgiApp | None = None,
        *,
        cache: Cache | None = None,
        **options: Any,
    ) -> None:
        super().__init__(base_url, "OnexTreeService", timeout, max_retries, circuit_breaker_config, app, **options)
        self.enable_cache = enable_cache
        self.cache_ttl = cache_ttl
        self.cache_max_size = cache_max_size
        self.cache_eviction_ratio = cache_eviction_ratio
        kept = cache or LocalCache(cache_max_size, cache_eviction_ratio)
        self._cache: Cache = kept if enable_cache else NullCache()
        self._cache_hits = 0
        self._cache_misses = 0

    async def get_intelligence(
        self,
        context: str,
        include_patterns: bool = True,
        include_relationships: bool = True,
        correlation_id: UUID | str | None = None,
        use_cache: bool = True,
        enable_fallback: bool = True,
    ) -> IntelligenceResult:
        """Ask what is known about a context.

        Args:
            context: free text.
            include_patterns: whether patterns are wanted.
            include_relationships: whether relationships are wanted.
            correlation_id: see the class.
            use_cache: False asks the service; the answer is still kept.
            enable_fallback: answer with a degraded result where the service cannot.

        Raises:
            ClientError: only with `enable_fallback=False`.
        """
        question = {
            "context": context,
            "include_patterns": include_patterns,
            "include_relationships": include_relationships,
        }
        try:
            result = await self._cached(
                "get_intelligence",
                "/intelligence",
                question,
                "Intelligence retrieval failed",
                self._understood,
                correlation_id=correlation_id,
                use_cache=use_cache,
            )
        except ClientError as error:
            if not enable_fallback:
                raise
            result = self._create_fallback_result(context, error)
        if result.degraded:
            cause = str(result.metadata.get("error") or result.intelligence.get("analysis_type"))
            events.emit(events.AnswerDegraded(self.service_name, "get_intelligence", cause))
        return result

    async def query_knowledge(
        self,
        query: str,
        max_depth: int = 3,
        filters: Mapping[str, Any] | None = None,
        correlation_id: UUID | str | None = None,
        use_cache: bool = True,
    ) -> dict[str, Any]:
        """Query the knowledge graph: `results`, `paths`, `metadata`."""
        return await self._cached(
            "query_knowledge",
            "/knowledge/query",
            {"query": query, "max_depth": max_depth, "filters": filters},
            "Knowledge query failed",
            dict,
            correlation_id=correlation_id,
            use_cache=use_cache,
        )

    async def navigate_tree(
        self,
        start_node: str,
        direction: str = "both",
        max_nodes: int = 100,
        correlation_id: UUID | str | None = None,
        use_cache: bool = True,
    ) -> dict[str, Any]:
        """Walk the tree from a node, `up`, `down` or `both`: `nodes`, `edges`, `metadata`."""
        return await self._cached(
            "navigate_tree",
            "/tree/navigate",
            {"start_node": start_node, "direction": direction, "max_nodes": max_nodes},
            "Tree navigation failed",
            dict,
            correlation_id=correlation_id,
            use_cache=use_cache,
        )

    async def clear_cache(self) -> None:
        """Forget every answer, and the hit counts."""
        await self._cache.clear()
        self._cache_hits = self._cache_misses = 0

    def get_cache_stats(self) -> dict[str, Any]:
        """Return how the cache does: `hit_rate` is hits per look-up, 0..1."""
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

    async def _cached(
        self,
        operation: str,
        endpoint: str,
        question: dict[str, Any],
        failure: str,
        read: Callable[[dict[str, Any]], T],
        *,
        correlation_id: UUID | str | None,
        use_cache: bool,
    ) -> T:
        """Answer from the cache, or ask and keep what is worth keeping: what can be read, and no emergency."""
        key = self._get_cache_key(endpoint, question)
        if use_cache and self.enable_cache:
            known = await self._cache.get(key)
            self._cache_hits += known is not None
            self._cache_misses += known is None
            events.emit(events.CacheAnswered(self.service_name, operation, known is not None))
            if isinstance(known, dict):
                return read(known)
        body = await self._ask(
            operation, "POST", endpoint, failure=failure, correlation_id=correlation_id, json=question
        )
        data = data_of(body)
        answer = read(data)
        if not _is_emergency(data):
            await self._cache.put(key, data, self.cache_ttl)
        return answer

    def _get_cache_key(self, endpoint: str, params: Mapping[str, Any] | None = None) -> str:
        """Name a question, whatever the order of its parameters."""
        return cache_key(endpoint, params)

    def _understood(self, data: dict[str, Any]) -> IntelligenceResult:
        """Read an answer.

        Raises:
            ClientError: it has another shape than an answer has.
        """
        parts = {
            "intelligence": data.get("intelligence", {}),
            "patterns": data.get("patterns", []),
            "relationships": data.get("relationships", []),
            "metadata": data.get("metadata", {}),
        }
        try:
            answer = IntelligenceResult(**parts, degraded=_is_emergency(data))
        except ValidationError as error:
            raise self._failed("Intelligence retrieval failed: the answer has an unknown shape") from error
        answer.confidence = self._calculate_confidence(
            answer.intelligence, answer.patterns, answer.relationships, answer.metadata
        )
        return answer

    def _calculate_confidence(
        self,
        intelligence_data: Any,
        patterns: list[Any],
        relationships: list[Any],
        metadata: Mapping[str, Any],
    ) -> ConfidenceScore:
        """Score an answer by its parts."""
        return ConfidenceScore.of(intelligence_data, patterns, relationships, metadata)

    def _create_fallback_result(self, context: str, error: Exception | None = None) -> IntelligenceResult:
        """Stand in for an answer that could not be had: empty, marked, worth nothing."""
        return IntelligenceResult(
            intelligence={
                "analysis_type": "fallback",
                "status": "degraded",
                "context": context,
                "confidence_score": "0.0",
                "recommendations": "Intelligence is unavailable: the stamp goes on without it.",
            },
            metadata={
                "fallback": True,
                "error": str(error) if error else "Service unavailable",
                "timestamp": time.time(),
            },
            degraded=True,
        )

    async def _validate_connection(self) -> bool:
        """Say whether the service answers and can work."""
        try:
            body = await self.health_check()
        except ClientError:
            return False
        return body.get("status") in self.HEALTHY


def _is_emergency(data: dict[str, Any]) -> bool:
    """Tell the service's own emergency answers, which come as HTTP 200 success (wire-contract.md 5, row 28)."""
    intelligence, metadata = data.get("intelligence"), data.get("metadata")
    if isinstance(intelligence, dict) and intelligence.get("analysis_type") in _EMERGENCY_ANALYSES:
        return True
    return isinstance(metadata, dict) and (metadata.get("tree_loaded") is False or bool(metadata.get("error")))
