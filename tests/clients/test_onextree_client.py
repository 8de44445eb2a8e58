"""`AsyncOnexTreeClient` over a mocked `_http_client`: behaviours.md, parts 4 and 6 (rows in comments)."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any
from uuid import uuid4

import httpx
import pytest

from bridge_tasks import events
from bridge_tasks.clients import (
    AsyncOnexTreeClient,
    CircuitBreakerError,
    ClientError,
    ConfidenceLevel,
    ConfidenceScore,
    IntelligenceResult,
    ServiceUnavailableError,
)
from tests.clients.mocked import answering, response

DATA: dict[str, Any] = {
    "intelligence": {
        "analysis_type": "security_analysis",
        "confidence_score": "0.90",
        "recommendations": "Review.",
    },
    "patterns": ["auth pattern"],
    "relationships": [{"type": "project_structure"}],
    "metadata": {"tree_loaded": True, "analysis_time_ms": 1.5},
}
GOOD = {"status": "success", "data": DATA}
ERROR = {"status": "error", "error": "no luck"}
MINIMAL = {
    "status": "success",
    "data": {**DATA, "intelligence": {**DATA["intelligence"], "analysis_type": "minimal"}},
}


@pytest.fixture
def client() -> AsyncOnexTreeClient:
    return AsyncOnexTreeClient("http://service:8054", max_retries=2)


def test_the_defaults() -> None:  # row 85
    client = AsyncOnexTreeClient()
    assert client.base_url == "http://192.168.86.200:8058"
    assert client.service_name == "OnexTreeService"
    assert (client.timeout, client.max_retries, client.enable_cache, client.cache_ttl) == (30.0, 3, True, 300)
    assert (client.cache_max_size, client.cache_eviction_ratio) == (1000, 0.2)
    assert (client.DEFAULT_CACHE_MAX_SIZE, client.DEFAULT_CACHE_EVICTION_RATIO) == (1000, 0.2)


def test_custom_values_are_kept() -> None:  # row 86
    client = AsyncOnexTreeClient("http://custom:9000", 60.0, 5, enable_cache=False, cache_ttl=600)
    assert (client.base_url, client.timeout, client.max_retries) == ("http://custom:9000", 60.0, 5)
    assert (client.enable_cache, client.cache_ttl) == (False, 600)


async def test_intelligence_is_a_model_with_its_parts_and_a_score(
    client: AsyncOnexTreeClient,
) -> None:  # rows 87, 88
    correlation_id = uuid4()
    with answering(client, GOOD) as http:
        result = await client.get_intelligence("auth", include_patterns=False, correlation_id=correlation_id)
    assert isinstance(result, IntelligenceResult)
    assert result.model_dump(include=set(DATA)) == DATA
    assert result.confidence.overall > 0.5
    assert not result.degraded
    sent = http.request.call_args.kwargs
    assert (sent["method"], sent["url"]) == ("POST", "http://service:8054/intelligence")
    assert sent["json"] == {"context": "auth", "include_patterns": False, "include_relationships": True}
    assert sent["headers"]["X-Correlation-ID"] == str(correlation_id)


async def test_parts_that_are_missing_are_empty(client: AsyncOnexTreeClient) -> None:  # row 88
    with answering(client, {"status": "success", "data": {"intelligence": {"a": 1}}}):
        result = await client.get_intelligence("anything")
    assert (result.patterns, result.relationships, result.metadata) == ([], [], {})


async def test_a_result_reads_like_a_mapping_too(
    client: AsyncOnexTreeClient,
) -> None:  # row 108; contract 5, row 27
    with answering(client, GOOD):
        result = await client.get_intelligence("auth")
    assert "intelligence" in result
    assert "nothing" not in result
    assert result["intelligence"] == DATA["intelligence"]
    assert (result.get("patterns", []), result.get("nothing", 7)) == (DATA["patterns"], 7)
    assert list(result) == result.keys() == [*DATA, "confidence", "degraded"]
    assert dict(result)["patterns"] == DATA["patterns"]
    with pytest.raises(KeyError):
        result["nothing"]


def test_a_result_needs_nothing_but_intelligence() -> None:  # row 127
    result = IntelligenceResult(intelligence={"a": 1})
    assert (result.patterns, result.relationships, result.metadata, result.degraded) == ([], [], {}, False)
    assert result.confidence == ConfidenceScore()


# The fallback


@pytest.mark.parametrize(
    "trouble",
    [
        ERROR,
        httpx.TimeoutException("slow"),
        httpx.ConnectError("refused"),
        CircuitBreakerError("is OPEN"),
        response(404),
        response(503),
        response(200, ["no object"]),
        {"status": "success", "data": {"intelligence": "text"}},
        {"status": "success", "data": {**DATA, "patterns": [7]}},
    ],
    ids=repr,
)
async def test_an_answer_that_cannot_be_had_is_a_degraded_one_or_an_error_as_the_caller_likes(
    trouble: Any, client: AsyncOnexTreeClient
) -> None:  # rows 90, 92, 93, 94
    with answering(client, trouble):
        result = await client.get_intelligence("auth")
        assert result.degraded
        assert result.confidence.overall == 0.0
        with pytest.raises(ClientError):
            await client.get_intelligence("auth", enable_fallback=False)
    assert len(client._cache) == 0, "nothing bad is kept"
    assert client.get_metrics()["error_count"] == client.get_metrics()["request_count"] == 2


async def test_without_fallback_a_refusal_and_an_outage_have_their_own_errors(client: AsyncOnexTreeClient) -> None:
    # rows 92, 93
    with answering(client, ERROR), pytest.raises(ClientError, match="Intelligence retrieval failed: no luck"):
        await client.get_intelligence("auth", enable_fallback=False)
    with answering(client, httpx.TimeoutException("slow")), pytest.raises(ServiceUnavailableError):
        await client.get_intelligence("auth", enable_fallback=False)


async def test_what_is_not_of_the_call_is_no_reason_to_fall_back(client: AsyncOnexTreeClient) -> None:  # row 94
    with answering(client, MemoryError()), pytest.raises(MemoryError):
        await client.get_intelligence("auth")


def test_the_fallback_is_marked_in_every_way(client: AsyncOnexTreeClient) -> None:  # row 128; contract 5, row 29
    result = client._create_fallback_result("auth", ClientError("no luck"))
    assert result.degraded
    assert (result.confidence.overall, result.confidence.level) == (0.0, ConfidenceLevel.MINIMAL)
    intelligence = result.intelligence
    assert (intelligence["analysis_type"], intelligence["status"]) == ("fallback", "degraded")
    assert (intelligence["context"], intelligence["confidence_score"]) == ("auth", "0.0")
    assert "unavailable" in intelligence["recommendations"].lower()
    assert (result.patterns, result.relationships) == ([], [])
    assert (result.metadata["fallback"], result.metadata["error"]) == (True, "no luck")
    assert result.metadata["timestamp"] > 0


def test_a_fallback_without_an_error_says_what_is_the_matter(client: AsyncOnexTreeClient) -> None:  # row 128
    assert client._create_fallback_result("auth").metadata["error"] == "Service unavailable"


async def test_an_outage_degrades_with_the_words_of_the_orchestrator(
    client: AsyncOnexTreeClient,
) -> None:  # row 112
    with answering(client, httpx.ConnectError("refused")):
        result = await client.get_intelligence("auth")
    assert result["intelligence"]["analysis_type"] == "fallback"
    assert float(result["intelligence"]["confidence_score"]) == 0.0


async def test_a_degraded_answer_is_told(client: AsyncOnexTreeClient, facts: list[events.Event]) -> None:
    with answering(client, ERROR, MINIMAL):
        await client.get_intelligence("auth")
        await client.get_intelligence("auth")
    told = [fact.cause for fact in facts if isinstance(fact, events.AnswerDegraded)]
    assert told == ["Intelligence retrieval failed: no luck", "minimal"]


# The service's own emergencies (row 130; contract 5, row 28)


@pytest.mark.parametrize(
    "emergency",
    [
        MINIMAL,
        {
            "status": "success",
            "data": {**DATA, "intelligence": {**DATA["intelligence"], "analysis_type": "error_fallback"}},
        },
        {"status": "success", "data": {**DATA, "metadata": {"tree_loaded": False}}},
        {"status": "success", "data": {**DATA, "metadata": {"error": "crashed"}}},
    ],
)
async def test_an_answer_made_up_in_an_emergency_is_marked_and_not_kept(
    emergency: Any, client: AsyncOnexTreeClient
) -> None:
    with answering(client, emergency, GOOD) as http:
        assert (await client.get_intelligence("auth")).degraded
        assert not (await client.get_intelligence("auth")).degraded
    assert http.request.call_count == 2


# Knowledge and the tree


async def test_a_knowledge_query_hands_its_filters_on(client: AsyncOnexTreeClient) -> None:  # row 95
    data = {"results": [{"id": 1}], "paths": [["a", "b"]]}
    with answering(client, {"status": "success", "data": data}) as http:
        assert await client.query_knowledge("endpoints", max_depth=5, filters={"type": "endpoint"}) == data
    sent = http.request.call_args.kwargs
    assert sent["url"].endswith("/knowledge/query")
    assert sent["json"] == {"query": "endpoints", "max_depth": 5, "filters": {"type": "endpoint"}}


async def test_each_direction_is_a_question_of_its_own(client: AsyncOnexTreeClient) -> None:  # row 96
    data = {"nodes": [{"id": "root"}], "edges": []}
    with answering(client, {"status": "success", "data": data}) as http:
        for direction in ("up", "down", "both"):
            assert await client.navigate_tree("root", direction=direction, max_nodes=50) == data
    assert [call.kwargs["json"]["direction"] for call in http.request.call_args_list] == ["up", "down", "both"]
    assert http.request.call_args.kwargs["json"]["max_nodes"] == 50


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda client: client.query_knowledge("q"), "Knowledge query failed: no luck"),
        (lambda client: client.navigate_tree("root"), "Tree navigation failed: no luck"),
    ],
)
async def test_a_query_has_no_fallback(call: Any, words: str, client: AsyncOnexTreeClient) -> None:  # rows 95, 96
    with answering(client, ERROR), pytest.raises(ClientError, match=words):
        await call(client)


# The cache

Ask = Callable[[AsyncOnexTreeClient], Any]
each_question = pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.get_intelligence("auth"),
        lambda client: client.query_knowledge("auth"),
        lambda client: client.navigate_tree("root"),
    ],
    ids=["intelligence", "knowledge", "tree"],
)


@each_question
async def test_the_same_question_is_asked_once(ask: Ask, client: AsyncOnexTreeClient) -> None:  # rows 89, 113
    with answering(client, GOOD) as http:
        first, second = await ask(client), await ask(client)
    assert first == second
    assert type(first) is type(second)
    assert http.request.call_count == 1
    stats = client.get_cache_stats()
    assert (stats["cache_hits"], stats["cache_misses"], stats["hit_rate"]) == (1, 1, 0.5)


@each_question
async def test_what_a_caller_does_to_an_answer_never_reaches_the_cache(
    ask: Ask, client: AsyncOnexTreeClient
) -> None:  # row 106, the other way round
    with answering(client, deepcopy(GOOD)):
        for _ in range(3):
            answer = await ask(client)
            assert answer["patterns"] == ["auth pattern"]
            answer["patterns"].append("scribble")


async def test_a_question_that_bypasses_the_cache_is_asked_again_and_its_answer_kept(
    client: AsyncOnexTreeClient,
) -> None:  # row 90
    with answering(client, GOOD) as http:
        await client.get_intelligence("auth", use_cache=False)
        await client.get_intelligence("auth", use_cache=False)
        assert http.request.call_count == 2
        await client.get_intelligence("auth")
    assert http.request.call_count == 2
    assert (client.get_cache_stats()["cache_hits"], client.get_cache_stats()["cache_misses"]) == (1, 0)


async def test_without_a_cache_every_question_is_asked_and_nothing_is_counted() -> None:  # row 91
    client = AsyncOnexTreeClient("http://service", enable_cache=False)
    with answering(client, GOOD) as http:
        await client.get_intelligence("auth")
        await client.get_intelligence("auth")
    assert http.request.call_count == 2
    stats = client.get_cache_stats()
    assert (stats["enabled"], stats["cache_size"], stats["cache_hits"], stats["cache_misses"]) == (False, 0, 0, 0)


async def test_the_correlation_id_is_not_part_of_the_question(client: AsyncOnexTreeClient) -> None:  # row 107
    with answering(client, GOOD) as http:
        await client.get_intelligence("auth", correlation_id=uuid4())
        await client.get_intelligence("auth", correlation_id=uuid4())
    assert http.request.call_count == 1


async def test_a_cleared_cache_knows_nothing_and_has_counted_nothing(
    client: AsyncOnexTreeClient,
) -> None:  # row 101
    with answering(client, GOOD):
        await client.get_intelligence("auth")
    await client.clear_cache()
    stats = client.get_cache_stats()
    assert (stats["cache_size"], stats["cache_hits"], stats["cache_misses"], stats["hit_rate"]) == (0, 0, 0, 0.0)


async def test_the_hit_rate_is_hits_per_look_up(client: AsyncOnexTreeClient) -> None:  # rows 102, 103
    with answering(client, GOOD):
        for _ in range(4):
            await client.get_intelligence("auth")
    assert client.get_cache_stats() == {
        "enabled": True,
        "cache_size": 1,
        "cache_max_size": 1000,
        "cache_hits": 3,
        "cache_misses": 1,
        "hit_rate": 0.75,
        "ttl_seconds": 300,
        "eviction_ratio": 0.2,
    }


def test_metrics_have_the_cache_s_beside_the_base_keys(client: AsyncOnexTreeClient) -> None:  # row 105
    metrics = client.get_metrics()
    assert metrics["cache"] == client.get_cache_stats()
    assert metrics["circuit_breaker"]["state"] == "closed"


def test_a_question_s_name_does_not_depend_on_the_order_of_its_parts(
    client: AsyncOnexTreeClient,
) -> None:  # row 100
    name = client._get_cache_key("/intelligence", {"a": 1, "b": {"c": 2, "d": 3}})
    assert name == client._get_cache_key("/intelligence", {"b": {"d": 3, "c": 2}, "a": 1})
    assert name != client._get_cache_key("/intelligence", {"a": 1, "b": {"c": 2, "d": 4}})
    assert name != client._get_cache_key("/other", {"a": 1, "b": {"c": 2, "d": 3}})
    assert len(name) == 64


@pytest.mark.parametrize("odd", [2**64, "\ud800", float("nan"), "x" * 300_000])
async def test_an_answer_that_no_stamp_could_carry_is_degraded_and_not_kept(
    odd: Any, client: AsyncOnexTreeClient
) -> None:
    data = {**DATA, "metadata": {"tree_loaded": True, "odd": odd}}
    with answering(client, {"status": "success", "data": data}):
        assert (await client.get_intelligence("auth")).degraded
    assert len(client._cache) == 0


async def test_each_look_up_is_told(client: AsyncOnexTreeClient, facts: list[events.Event]) -> None:
    with answering(client, GOOD):
        await client.get_intelligence("auth")
        await client.get_intelligence("auth")
    told = [fact for fact in facts if isinstance(fact, events.CacheAnswered)]
    assert told == [
        events.CacheAnswered("OnexTreeService", "get_intelligence", hit=False),
        events.CacheAnswered("OnexTreeService", "get_intelligence", hit=True),
    ]
