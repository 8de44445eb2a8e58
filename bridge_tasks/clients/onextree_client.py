"""The client of OnexTree: intelligence, knowledge and the tree, cached where an answer is good.

An answer that the service itself made up in an emergency, and our own fallback, are marked `degraded` and never
cached. Only intelligence has a fallback: a stamp can do without it, a query cannot.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from bridge_tasks import events
from bridge_tasks.cache import Cache, CacheEntry, Question, cache_key
from bridge_tasks.clients import onextree_answers as answers
from bridge_tasks.clients.base_client import AsgiApp
from bridge_tasks.clients.caching_client import CachingServiceClient
from bridge_tasks.errors import ClientError, RateLimited, ServiceUnavailableError
from bridge_tasks.models.onextree import ConfidenceLevel, ConfidenceScore, IntelligenceResult
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig
from bridge_tasks.resilience.policy.caching import CacheRules, Verdict

__all__ = ["AsyncOnexTreeClient", "CacheEntry", "ConfidenceLevel", "ConfidenceScore", "IntelligenceResult"]


class AsyncOnexTreeClient(CachingServiceClient):
    """Ask OnexTree.

    Every method takes `correlation_id` (a UUID or text), by default the one bound to the context, and raises
    `ClientError` for a refusal, `ServiceUnavailableError` for an outage, `CircuitBreakerError` while the circuit
    is open; `get_intelligence` falls back instead, unless told not to.

    The arguments about the cache are `CachingServiceClient`'s. An answer past its time, served because the service
    cannot be asked now or is being asked already, says so: `metadata["stale"]` is true, and
    `metadata["age_seconds"]` tells its age. It is real, and so not `degraded`.
    """

    def __init__(
        self,
        base_url: str | None = "http://192.168.86.200:8058",
        timeout: float = 30.0,
        max_retries: int = 3,
        enable_cache: bool = True,
        cache_ttl: float = 300,
        cache_max_size: int = CachingServiceClient.DEFAULT_CACHE_MAX_SIZE,
        cache_eviction_ratio: float = CachingServiceClient.DEFAULT_CACHE_EVICTION_RATIO,
        circuit_breaker_config: CircuitBreakerConfig | None = None,
        app: AsgiApp | None = None,
        *,
        cache: Cache | None = None,
        cache_rules: CacheRules | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base_url,
            "OnexTreeService",
            timeout,
            max_retries,
            circuit_breaker_config,
            app,
            enable_cache=enable_cache,
            cache_ttl=cache_ttl,
            cache_max_size=cache_max_size,
            cache_eviction_ratio=cache_eviction_ratio,
            cache=cache,
            cache_rules=cache_rules,
            **options,
        )

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

    def _is_worth_keeping(self, data: dict[str, Any]) -> bool:
        return not answers.is_emergency(data)

    def _is_final(self, operation: str, error: ClientError) -> bool:
        return answers.is_missing(operation, error)

    def _understood(self, data: dict[str, Any]) -> IntelligenceResult:
        """Read an answer.

        Raises:
            ClientError: it has another shape than an answer has.
        """
        try:
            answer = answers.intelligence_answer(data)
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
        return answers.fallback(context, error)

    async def _validate_connection(self) -> bool:
        """Say whether the service answers and can work."""
        try:
            body = await self.health_check()
        except ClientError:
            return False
        return body.get("status") in self.HEALTHY
