"""What both clients share, row by row of behaviours.md, part 2 (the row is in each test's comment)."""

import socket
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from bridge_tasks import clients, correlation
from bridge_tasks.clients import (
    AsyncMetadataStampingClient,
    AsyncOnexTreeClient,
    BaseServiceClient,
    CircuitBreakerConfig,
    CircuitBreakerError,
    CircuitState,
    ClientError,
    ServiceUnavailableError,
)
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.bottom import Bottom, asyncio_bottom
from tests.clients.mocked import answering, response
from tests.never_suspending import finished

HASHED = {"status": "success", "data": {"hash": "ab" * 32}}
URL = "http://service:8053"


@pytest.fixture
def client() -> AsyncMetadataStampingClient:
    return AsyncMetadataStampingClient(URL)


# Names (rows 1, 2)


def test_the_package_exports_what_the_guide_imports() -> None:
    assert set(clients.__all__) == {
        "AsyncMetadataStampingClient",
        "AsyncOnexTreeClient",
        "BaseServiceClient",
        "CacheEntry",
        "CircuitBreaker",
        "CircuitBreakerConfig",
        "CircuitBreakerError",
        "CircuitState",
        "ClientError",
        "ConfidenceLevel",
        "ConfidenceScore",
        "IntelligenceResult",
        "ServiceUnavailableError",
    }


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("circuit_breaker", ["CircuitBreaker", "CircuitBreakerConfig", "CircuitBreakerError", "CircuitState"]),
        ("base_client", ["BaseServiceClient", "ClientError", "ServiceUnavailableError"]),
        ("metadata_stamping_client", ["AsyncMetadataStampingClient"]),
        (
            "onextree_client",
            ["AsyncOnexTreeClient", "CacheEntry", "ConfidenceLevel", "ConfidenceScore", "IntelligenceResult"],
        ),
    ],
)
def test_the_submodules_have_the_guide_s_names(module: str, names: list[str]) -> None:
    there = getattr(clients, module)
    assert [name for name in names if getattr(there, name, None) is not getattr(clients, name)] == []


# Construction


def test_a_base_client_cannot_be_made_without_a_connection_check() -> None:  # row 48
    with pytest.raises(TypeError, match="_validate_connection"):
        BaseServiceClient(URL, "Service")  # type: ignore[abstract] # that is the point


@pytest.mark.parametrize(
    ("given", "kept"), [("http://service/", "http://service"), ("http://service//", "http://service"), (None, "")]
)
def test_a_base_url_loses_its_trailing_slashes(given: str | None, kept: str) -> None:  # row 49
    assert AsyncMetadataStampingClient(given).base_url == kept


def test_a_client_has_its_attributes_before_anything_is_opened(client: AsyncMetadataStampingClient) -> None:
    # rows 50, 52
    assert (client.base_url, client.service_name) == (URL, "MetadataStampingService")
    assert (client.timeout, client.max_retries) == (30.0, 3)
    assert client.circuit_breaker.state is CircuitState.CLOSED
    assert client._http_client is None


def test_the_breaker_bears_the_service_s_name_and_the_client_s_timeout() -> None:  # row 50
    breaker = AsyncMetadataStampingClient(URL, timeout=7.0).circuit_breaker
    assert breaker.name == "MetadataStampingService_circuit_breaker"
    assert breaker.config == CircuitBreakerConfig(
        failure_threshold=5, recovery_timeout=60, timeout=7.0, minimum_throughput=5
    )


@pytest.mark.parametrize("kind", [AsyncMetadataStampingClient, AsyncOnexTreeClient])
def test_a_client_takes_the_numbers_that_the_guide_asks_to_adjust(
    kind: type[AsyncMetadataStampingClient] | type[AsyncOnexTreeClient],
) -> None:  # row 51, the other way round
    config = CircuitBreakerConfig(failure_threshold=10, recovery_timeout=120)
    retry = RetryConfig(attempts=7, initial=0.1)
    client = kind(URL, circuit_breaker_config=config, retry=retry, deadline=12.0)
    assert client.circuit_breaker.config is config
    assert (client.retry, client.max_retries, client.deadline) == (retry, 7, 12.0)


def test_the_default_deadline_is_long_enough_for_every_try_and_pause() -> None:
    client = AsyncMetadataStampingClient(URL, timeout=10.0, max_retries=3)
    assert client.deadline == 3 * 10.0 + client.retry.longest


# Opening and closing


async def test_a_client_opens_with_its_block_and_closes_after_it(client: AsyncMetadataStampingClient) -> None:
    # rows 52, 83
    async with client as same:
        assert same is client
        assert isinstance(client._http_client, httpx.AsyncClient)
    assert client._http_client is None


async def test_closing_is_harmless_twice_and_without_opening(
    client: AsyncMetadataStampingClient,
) -> None:  # row 52
    await client.close()
    await client.initialize()
    await client.close()
    await client.close()
    assert client._http_client is None


async def test_opening_twice_keeps_the_pool(client: AsyncMetadataStampingClient) -> None:  # row 53
    async with client:
        pool = client._http_client
        await client.initialize()
        assert client._http_client is pool


async def test_a_closed_client_may_be_opened_again(client: AsyncMetadataStampingClient) -> None:  # row 53
    async with client:
        pass
    async with client:
        assert client._http_client is not None


async def test_a_pool_that_was_set_beforehand_is_used_and_given_back(client: AsyncMetadataStampingClient) -> None:
    # row 5
    with answering(client, HASHED) as http:
        await client.generate_hash(b"test")
        assert client._http_client is http
    assert client._http_client is None
    await client.close()


# The request


async def test_a_correlation_id_rides_in_its_header(client: AsyncMetadataStampingClient) -> None:  # row 55
    correlation_id = uuid4()
    with answering(client, HASHED) as http:
        await client.generate_hash(b"test", correlation_id=correlation_id)
    headers = http.request.call_args.kwargs["headers"]
    assert headers == {
        "X-Correlation-ID": str(correlation_id),
        "User-Agent": "omninode-bridge/MetadataStampingService",
    }


async def test_without_a_correlation_id_there_is_no_header(client: AsyncMetadataStampingClient) -> None:  # row 55
    with answering(client, HASHED) as http:
        await client.generate_hash(b"test")
    assert "X-Correlation-ID" not in http.request.call_args.kwargs["headers"]


async def test_the_id_bound_to_the_context_is_the_default_and_one_s_own_wins(
    client: AsyncMetadataStampingClient,
) -> None:
    with answering(client, HASHED) as http, correlation.bound("bound"):
        await client.generate_hash(b"test")
        await client.generate_hash(b"test", correlation_id="own")
    sent = [call.kwargs["headers"]["X-Correlation-ID"] for call in http.request.call_args_list]
    assert sent == ["bound", "own"]


async def test_a_caller_s_headers_are_merged_and_our_two_win(
    client: AsyncMetadataStampingClient,
) -> None:  # row 55
    given = {"X-Namespace": "n", "User-Agent": "theirs", "X-Correlation-ID": "theirs"}
    with answering(client, HASHED) as http:
        await client._request("test", "GET", "/health", correlation_id="ours", headers=given)
    assert http.request.call_args.kwargs["headers"] == {
        "X-Namespace": "n",
        "User-Agent": "omninode-bridge/MetadataStampingService",
        "X-Correlation-ID": "ours",
    }


async def test_the_url_is_absolute(client: AsyncMetadataStampingClient) -> None:  # rows 3, 56
    with answering(client, HASHED) as http:
        await client.generate_hash(b"test")
    assert http.request.call_args.kwargs["url"] == f"{URL}/hash"
    assert http.request.call_args.args == (), "everything goes by keyword"


@pytest.mark.parametrize("bad", ["", "two words", "a\r\nX-Evil: 1", "x" * 129, "-dash", 7])
async def test_a_correlation_id_that_no_header_can_carry_is_refused_before_anything_is_sent(
    bad: Any, client: AsyncMetadataStampingClient
) -> None:
    with answering(client, HASHED) as http, pytest.raises(InvalidRequest) as refused:
        await client.generate_hash(b"test", correlation_id=bad)
    assert refused.value.field == "correlation_id"
    http.request.assert_not_called()


async def test_a_bad_correlation_id_is_no_reason_to_fall_back() -> None:
    client = AsyncOnexTreeClient(URL)
    with answering(client, HASHED), pytest.raises(InvalidRequest):
        await client.get_intelligence("context", correlation_id="two words")


# Errors


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (CircuitBreakerError("is OPEN", None, None, 60.0), CircuitBreakerError),
        (httpx.ConnectTimeout("slow"), ServiceUnavailableError),
        (httpx.ReadTimeout("slow"), ServiceUnavailableError),
        (httpx.PoolTimeout("full"), ServiceUnavailableError),
        (TimeoutError(), ServiceUnavailableError),
        (httpx.ConnectError("refused"), ServiceUnavailableError),
        (httpx.ReadError("reset"), ServiceUnavailableError),
        (httpx.RemoteProtocolError("cut"), ServiceUnavailableError),
        (response(429), ServiceUnavailableError),
        (response(502), ServiceUnavailableError),
        (response(503), ServiceUnavailableError),
        (response(504), ServiceUnavailableError),
        (response(307), ClientError),
        (response(400), ClientError),
        (response(404), ClientError),
        (response(413), ClientError),
        (response(422), ClientError),
        (response(500), ClientError),
        (response(507), ClientError),
        (httpx.DecodingError("the answer exceeds 10 bytes"), ClientError),
        (httpx.UnsupportedProtocol("ftp"), ClientError),
        (httpx.LocalProtocolError("ours"), ClientError),
        (httpx.InvalidURL("bad"), ClientError),
        (OSError("no such file"), ClientError),
        (ExceptionGroup("several", [OSError("one")]), ClientError),
    ],
    ids=repr,
)
async def test_whatever_goes_wrong_the_caller_meets_one_of_our_own_errors(
    trouble: Any, kind: type[ClientError], client: AsyncMetadataStampingClient
) -> None:  # rows 61, 62; contract 5, rows 30, 31
    with answering(client, trouble), pytest.raises(ClientError) as raised:
        await client.generate_hash(b"test")
    assert type(raised.value) is kind
    assert client.get_metrics()["error_count"] == client.get_metrics()["request_count"] == 1
    if isinstance(trouble, httpx.Response):
        assert raised.value.status == trouble.status_code
        assert str(trouble.status_code) in str(raised.value)


async def test_what_is_not_of_the_call_passes_through(client: AsyncMetadataStampingClient) -> None:
    class SoftTimeLimitExceeded(Exception):  # noqa: N818 - Celery's name
        pass

    with answering(client, SoftTimeLimitExceeded()), pytest.raises(SoftTimeLimitExceeded):
        await client.generate_hash(b"test")


async def test_a_refusal_hands_on_when_to_come_back(client: AsyncMetadataStampingClient) -> None:
    with answering(client, response(503, Retry_After="17")), pytest.raises(ServiceUnavailableError) as raised:
        await client.generate_hash(b"test")
    assert raised.value.retry_after == 17.0


@pytest.mark.parametrize("bottom", [asyncio_bottom, blocking_bottom])
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999", "http://127.0.0.1:-1", "ftp://127.0.0.1", "nonsense", ""]
)
async def test_an_address_that_cannot_be_is_a_client_error(
    url: str, bottom: Callable[[], Bottom]
) -> None:  # row 62
    async with AsyncOnexTreeClient(URL, bottom=bottom(), max_retries=1) as client:
        client.base_url = url
        with pytest.raises(ClientError):
            await client.query_knowledge("anything")
        assert client.circuit_breaker.metrics.failure_count <= 1


@pytest.mark.parametrize("bottom", [asyncio_bottom, blocking_bottom])
async def test_a_service_that_is_down_is_unavailable(bottom: Callable[[], Bottom]) -> None:  # row 62
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody_listens.getsockname()[1]}"
        async with AsyncMetadataStampingClient(url, retry=RetryConfig(initial=0.001), bottom=bottom()) as client:
            with pytest.raises(ServiceUnavailableError, match="unreachable"):
                await client.generate_hash(b"test")
            assert client.circuit_breaker.metrics.failure_count == 3


# What a service complains of (contract 5, row 17)


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"status": "error", "error": "no such thing"}, None, "no such thing"),
        (
            {"status": "error", "error": [{"code": "BAD_THING", "field": "x", "message": "is bad"}]},
            "BAD_THING",
            "is bad",
        ),
        (
            {
                "detail": {
                    "status": "error",
                    "error": [{"code": "VALIDATION_ERROR", "field": None, "message": "Invalid input"}],
                    "metadata": {"status_code": 500},
                }
            },
            "VALIDATION_ERROR",
            "Invalid input",
        ),
        ({"detail": "Content size exceeds"}, None, "Content size exceeds"),
        (
            {
                "detail": [
                    {"type": "missing", "loc": ["body", "content"], "msg": "Field required", "input": "SECRET"}
                ]
            },
            None,
            "body.content: Field required",
        ),
    ],
)
async def test_a_complaint_of_any_of_the_four_forms_is_understood(
    body: Any, code: str | None, words: str, client: AsyncMetadataStampingClient
) -> None:
    with answering(client, response(422, body)), pytest.raises(ClientError, match=words) as raised:
        await client.generate_hash(b"test")
    assert (raised.value.status, raised.value.code) == (422, code)
    assert "SECRET" not in str(raised.value)


async def test_the_words_of_a_5xx_are_not_repeated(client: AsyncMetadataStampingClient) -> None:
    internals = {"detail": {"error": [{"code": "RUNTIME_ERROR", "message": "postgres://user:pw@db failed"}]}}
    with answering(client, response(500, internals)), pytest.raises(ClientError) as raised:
        await client.generate_hash(b"test")
    assert (raised.value.code, "postgres" in repr(raised.value)) == ("RUNTIME_ERROR", False)


async def test_a_long_or_unprintable_complaint_is_cut_to_a_line(client: AsyncMetadataStampingClient) -> None:
    loud = response(400, {"detail": "\x1b[31m\n" + "x" * 10_000})
    with answering(client, loud), pytest.raises(ClientError) as raised:
        await client.generate_hash(b"test")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("body", [None, [], "text", 7])
async def test_an_answer_that_is_no_object_is_a_client_error(
    body: Any, client: AsyncMetadataStampingClient
) -> None:
    with answering(client, response(200, body)), pytest.raises(ClientError, match="other than a JSON object"):
        await client.generate_hash(b"test")


# Counts


async def test_every_request_counts_and_the_error_rate_is_a_share_of_them(
    client: AsyncMetadataStampingClient,
) -> None:  # rows 63, 64; contract 5, row 42
    with answering(client, HASHED, httpx.ConnectError("refused"), HASHED, {"status": "error", "error": "no"}):
        await client.generate_hash(b"test")
        with pytest.raises(ServiceUnavailableError):
            await client.generate_hash(b"test")
        await client.generate_hash(b"test")
        with pytest.raises(ClientError):
            await client.generate_hash(b"test")
    metrics = client.get_metrics()
    assert (metrics["request_count"], metrics["error_count"], metrics["error_rate"]) == (4, 2, 0.5)


def test_metrics_have_the_guide_s_keys(client: AsyncMetadataStampingClient) -> None:  # row 65
    metrics = client.get_metrics()
    assert metrics["circuit_breaker"]["state"] == "closed"
    assert {key: metrics[key] for key in metrics if key != "circuit_breaker"} == {
        "service_name": "MetadataStampingService",
        "base_url": URL,
        "request_count": 0,
        "error_count": 0,
        "error_rate": 0.0,
    }


# Health

Either = AsyncMetadataStampingClient | AsyncOnexTreeClient
both = pytest.mark.parametrize("kind", [AsyncMetadataStampingClient, AsyncOnexTreeClient])


@both
async def test_health_is_the_service_s_body_as_it_is(kind: type[Either]) -> None:  # rows 66, 98
    client = kind(URL)
    body = {"status": "healthy", "version": "1.0.0"}
    with answering(client, body) as http:
        assert await client.health_check() == body
    assert http.request.call_args.kwargs["method"] == "GET"
    assert http.request.call_args.kwargs["url"] == f"{URL}/health"


@both
@pytest.mark.parametrize(
    "trouble", [httpx.ConnectError("refused"), response(404), response(500), response(200, [])], ids=repr
)
async def test_health_that_cannot_be_had_is_unavailable(kind: type[Either], trouble: Any) -> None:  # row 66
    client = kind(URL)
    with answering(client, trouble), pytest.raises(ServiceUnavailableError):
        await client.health_check()


@both
@pytest.mark.parametrize(
    ("body", "connected"),
    [
        ({"status": "healthy"}, True),
        ({"status": "ok"}, True),
        ({"status": "unhealthy"}, False),
        ({}, False),
        ({"status": []}, False),
    ],
)
async def test_a_connection_is_valid_when_the_service_is_well(
    kind: type[Either], body: Any, connected: bool
) -> None:  # rows 67, 97
    client = kind(URL)
    with answering(client, body):
        assert await client._validate_connection() is connected


@both
@pytest.mark.parametrize("trouble", [httpx.ReadTimeout("slow"), response(503), CircuitBreakerError("is OPEN")])
async def test_a_connection_that_fails_is_not_valid_and_raises_nothing(
    kind: type[Either], trouble: Any
) -> None:  # rows 67, 97
    client = kind(URL)
    with answering(client, trouble):
        assert await client._validate_connection() is False


def test_the_same_client_serves_a_task_that_has_no_event_loop() -> None:
    client = AsyncMetadataStampingClient(URL, bottom=blocking_bottom())
    with answering(client, HASHED):
        assert finished(client.generate_hash(b"test"))["hash"] == "ab" * 32
    finished(client.initialize())
    finished(client.close())
