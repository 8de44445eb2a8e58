"""The client of OnexTree: intelligence, knowledge and the tree, cached where an answer is good.

An answer that the service itself made up in an emergency, and our own fallback, are marked `degraded` and never
cached. Only intelligence has a fallback: a stamp can do without it, a query cannot.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from bridge_tasks import events
from bridge_tasks.cache import (
    DEFAULT_EVICTION_RATIO,
    DEFAULT_MAX_ENTRIES,
    Answering,
    Cache,
    CacheEntry,
    CacheStats,
    LocalCache,
    NullCache,
    Question,
    cache_key,
)
from bridge_tasks.cache.answering import Asking
from bridge_tasks.clients.base_client import AsgiApp, BaseServiceClient, data_of
from bridge_tasks.errors import ClientError, RateLimited, ServiceUnavailableError
from bridge_tasks.models.fields import JsonObject
from bridge_tasks.models.onextree import ConfidenceLevel, ConfidenceScore, IntelligenceResult
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig
from bridge_tasks.resilience.policy.caching import (
    EVERYTHING,
    CacheRules,
    Verdict,
    mark_of_prefix,
    mark_of_tag,
)

T = TypeVar("T")

__all__ = ["AsyncOnexTreeClient", "CacheEntry", "ConfidenceLevel", "ConfidenceScore", "IntelligenceResult"]

_SOUND: TypeAdapter[dict[str, Any]] = TypeAdapter(JsonObject)

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
        cache_rules: how they age, in the default cache and in any other.

    An answer past its time, served because the service cannot be asked now or is being asked already, says so:
    `metadata["stale"]` is true, and `metadata["age_seconds"]` tells its age. It is real, and so not `degraded`.
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
        cache_rules: CacheRules | None = None,
        **options: Any,
    ) -> None:
        super().__init__(base_url, "OnexTreeService", timeout, max_retries, circuit_breaker_config, app, **options)
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
        self._answering = Answering(cache, rules, self._bottom, patience=timeout, deadline=self.deadline)
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
        *,
        tags: Sequence[str] = (),
    ) -> IntelligenceResult:
        """Ask what is known about a context.

        Args:
            context: free text.
            include_patterns: whether patterns are wanted.
            include_relationships: whether relationships are wanted.
            correlation_id: see the class.
            use_cache: False asks the service; the answer is still kept.
            enable_fallback: answer with a degraded result where the service cannot.
            tags: by which, later, the cached answer may be made void for those who ask with the same tag.

        Raises:
            RateLimited: our own limit is used up; no emergency answer stands in for one that is to be had later.
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
                subject=context,
                tags=tags,
                correlation_id=correlation_id,
                use_cache=use_cache,
            )
        except ClientError as error:
            # Our own limit is no outage: the caller may have the real answer a little later.
            if not enable_fallback or isinstance(error, RateLimited):
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
        *,
        tags: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Query the knowledge graph: `results`, `paths`, `metadata`."""
        return await self._cached(
            "query_knowledge",
            "/knowledge/query",
            {"query": query, "max_depth": max_depth, "filters": filters},
            "Knowledge query failed",
            dict,
            subject=query,
            tags=tags,
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
        *,
        tags: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Walk the tree from a node, `up`, `down` or `both`: `nodes`, `edges`, `metadata`."""
        return await self._cached(
            "navigate_tree",
            "/tree/navigate",
            {"start_node": start_node, "direction": direction, "max_nodes": max_nodes},
            "Tree navigation failed",
            dict,
            subject=start_node,
            tags=tags,
            correlation_id=correlation_id,
            use_cache=use_cache,
        )

    async def clear_cache(self) -> None:
        """Forget every answer, and the hit counts."""
        await self._cache.void(EVERYTHING)
        self._cache_hits = self._cache_misses = 0

    async def invalidate_cache(self, *, tag: str | None = None, prefix: str | None = None) -> bool:
        """Make void what was answered under a tag, and what was answered about anything beginning with `prefix`.

        Answers that are being asked for at this moment are not kept either. Tags are those given with a question,
        and `operation:get_intelligence` (or `query_knowledge`, `navigate_tree`).

        Returns:
            Whether everybody who shares the cache was told.
        """
        marks = [mark_of_tag(tag)] if tag is not None else []
        marks += [mark_of_prefix(prefix)] if prefix is not None else []
        return all([await self._cache.void(mark) for mark in marks])

    async def warm_cache(self, contexts: Sequence[str]) -> dict[str, int]:
        """Ask for the intelligence of each context, unless it is known or another process does so already.

        Returns:
            How many are `known` now, and how many `failed`; both 0 where another process warms the same list. An
            outage ends it: what is left has failed.
        """
        listed = Question(cache_key("warm", {"contexts": sorted(contexts)}), "", ("warm",))
        found = await self._cache.look(listed, waiting=True)
        if found.verdict is not Verdict.FILL:
            return {"known": 0, "failed": 0}
        known = 0
        try:
            for context in contexts:
                try:
                    known += not (await self.get_intelligence(context, enable_fallback=False)).degraded
                except ServiceUnavailableError:
                    break
                except ClientError:
                    continue
        finally:
            await self._cache.give_up(listed, found.lease, failed=False)
        return {"known": known, "failed": len(contexts) - known}

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

        named = Question(self._get_cache_key(endpoint, question), subject, (f"operation:{operation}", *tags))
        asking = Asking(self.service_name, operation, named, ask, _is_real, _NO_SUCH_THING[operation])
        if use_cache and self.enable_cache:
            return await self._answering.answer(asking, read, self.cache_ttl, looked)
        return await self._answering.ask(asking, read, self.cache_ttl)

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
        try:  # what goes into a stamp must be fit for one: bounded, finite, not too deep
            answer = IntelligenceResult(**_SOUND.validate_python(parts), degraded=_is_emergency(data))
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


def _is_real(data: dict[str, Any]) -> bool:
    return not _is_emergency(data)


def _is_missing(error: ClientError) -> bool:
    """Tell a 404: no such node, or (the known server, wire-contract.md 5, row 26) no such endpoint."""
    return error.status == HTTPStatus.NOT_FOUND


def _is_never_final(error: ClientError) -> bool:
    del error
    return False


_NO_SUCH_THING = {
    "get_intelligence": _is_never_final,
    "query_knowledge": _is_missing,
    "navigate_tree": _is_missing,
}
"""Which refusals are kept for a while. Intelligence exists on every server: there, a 404 is a wrong address."""
