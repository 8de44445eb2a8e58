"""Every Python snippet of the client guide, to the letter but for its import path and URLs, run for real.

A snippet stands between "the guide says" and "end of snippet"; around it are the names it leaves undefined and
what must be true afterwards. The services are the sandbox's, in the guide's own dialect.
"""
# ruff: noqa: T201, TRY400, F841, ANN201, ANN202, ANN204, ERA001 - snippets print, catch and name as they do
# mypy: disable-error-code="no-untyped-def,no-untyped-call,type-arg"
# ... and are typed as the guide types them.

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from blake3 import blake3
from fastapi import FastAPI

from bridge_tasks.clients import (
    AsyncMetadataStampingClient,
    AsyncOnexTreeClient,
    CircuitBreakerError,
    ClientError,
    ServiceUnavailableError,
)
from bridge_tasks.clients.circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitState
from bridge_tasks.resilience.transport import bottom
from bridge_tasks.sandbox.faults import Status
from bridge_tasks.sandbox.refusals import Dialect
from tests.running_service import RunningService

logger = logging.getLogger("guide")


@pytest.fixture
def metadata_service(metadata_services: dict[Dialect, RunningService]) -> RunningService:
    service = metadata_services["guide"]
    service.reset()
    return service


@pytest.fixture
def onextree_service(onextree_services: dict[Dialect, RunningService]) -> RunningService:
    service = onextree_services["guide"]
    service.reset()
    return service


@pytest.fixture
def metadata_url(metadata_service: RunningService) -> str:
    return metadata_service.url


@pytest.fixture
def onextree_url(onextree_service: RunningService) -> str:
    return onextree_service.url


@pytest.fixture
async def client(metadata_url: str) -> AsyncIterator[AsyncMetadataStampingClient]:
    async with AsyncMetadataStampingClient(metadata_url) as opened:
        yield opened


@pytest.fixture
async def onextree_client(onextree_url: str) -> AsyncIterator[AsyncOnexTreeClient]:
    async with AsyncOnexTreeClient(onextree_url) as opened:
        yield opened


# Usage examples


async def test_metadata_stamping_client(metadata_url: str, metadata_service: RunningService) -> None:
    # the guide says
    # Initialize client
    async with AsyncMetadataStampingClient(metadata_url) as client:
        correlation_id = uuid4()

        # Generate hash
        file_data = b"content to hash"
        hash_result = await client.generate_hash(
            file_data=file_data, namespace="default", correlation_id=correlation_id
        )

        # Create metadata stamp
        stamp = await client.create_stamp(
            file_hash=hash_result["hash"],
            file_path="/path/to/file",
            file_size=len(file_data),
            stamp_data={"key": "value"},
            content_type="text/plain",
            namespace="omninode.services.metadata",
            correlation_id=correlation_id,
        )

        # Validate stamps
        validation = await client.validate_stamp(
            content="content with stamps",
            namespace="omninode.services.metadata",
            correlation_id=correlation_id,
        )

        # Batch operations
        batch_items = [
            {"file_hash": f"hash_{i}", "file_path": f"/path/{i}", "file_size": 100 * i, "stamp_data": {}}
            for i in range(10)
        ]

        batch_result = await client.batch_create_stamps(
            items=batch_items, namespace="omninode.services.metadata", correlation_id=correlation_id
        )
    # end of snippet
    assert hash_result["hash"] == blake3(file_data).hexdigest()
    assert (stamp["file_hash"], stamp["namespace"]) == (hash_result["hash"], "omninode.services.metadata")
    assert (validation["validation_result"], validation["stamps_found"]) == (False, 0)
    assert (batch_result["total"], batch_result["successful"], batch_result["failed"]) == (10, 10, 0)
    carried = metadata_service.asked(correlation_id=str(correlation_id))
    assert len(carried) == 4 + 1, "four calls, and the question where the routes are"


async def test_onextree_client(onextree_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    # the guide says
    # Initialize client with caching
    async with AsyncOnexTreeClient(base_url=onextree_url, enable_cache=True, cache_ttl=300) as client:
        correlation_id = uuid4()

        # Get intelligence data
        intelligence = await client.get_intelligence(
            context="authentication patterns",
            include_patterns=True,
            include_relationships=True,
            correlation_id=correlation_id,
        )

        # Query knowledge graph
        knowledge = await client.query_knowledge(
            query="Find all API endpoints",
            max_depth=3,
            filters={"type": "endpoint"},
            correlation_id=correlation_id,
        )

        # Navigate tree
        tree_data = await client.navigate_tree(
            start_node="root", direction="both", max_nodes=100, correlation_id=correlation_id
        )

        # Get cache statistics
        cache_stats = client.get_cache_stats()
        print(f"Cache hit rate: {cache_stats['hit_rate']:.2%}")
    # end of snippet
    assert not intelligence.degraded
    assert intelligence.patterns
    assert [result["path"] for result in knowledge["results"]] == ["api/endpoints.py"]
    assert len(tree_data["nodes"]) > 6
    assert capsys.readouterr().out == "Cache hit rate: 0.00%\n"


# Features


async def test_circuit_breaker_pattern() -> None:
    down = True
    handled: list[str] = []

    async def external_service_call() -> str:
        if down:
            raise ConnectionError("down")
        return "answer"

    def handle_service_unavailable() -> None:
        handled.append("handled")

    # the guide says
    # Create custom circuit breaker
    config = CircuitBreakerConfig(
        failure_threshold=5,  # Open after 5 failures
        recovery_timeout=60,  # Wait 60s before retry
        half_open_max_calls=3,  # Max calls in half-open
        success_threshold=2,  # Close after 2 successes
        timeout=30.0,  # Operation timeout
    )

    cb = CircuitBreaker("my-service", config)

    # Use with async operations
    async def risky_operation():
        return await external_service_call()

    async def snippet() -> Any:
        try:
            result = await cb.call(risky_operation)
        except CircuitBreakerError:
            # Circuit is open, fail fast
            handle_service_unavailable()
        # end of snippet
        else:
            return result

    for _ in range(5):
        with pytest.raises(ConnectionError):
            await snippet()
    assert cb.state is CircuitState.OPEN
    await snippet()
    assert handled == ["handled"]
    down = False
    await cb.reset()
    assert await snippet() == "answer"


async def test_retry_logic(metadata_url: str, metadata_service: RunningService) -> None:
    # the guide says
    client = AsyncMetadataStampingClient(
        base_url=metadata_url,
        timeout=30.0,
        max_retries=3,  # Retry up to 3 times
    )

    # Retries automatically on:
    # - Network errors
    # - Timeout errors
    # - Temporary service unavailability
    # end of snippet
    metadata_service.inject(Status(code=503, retry_after=0, path="/hash", count=1))
    async with client:
        await client.generate_hash(b"test")
    assert len(metadata_service.asked("/hash")) == 2


async def test_correlation_id_propagation(
    client: AsyncMetadataStampingClient, metadata_service: RunningService
) -> None:
    data = b"data"
    # the guide says
    correlation_id = uuid4()

    # Correlation ID is propagated through headers
    result = await client.generate_hash(file_data=data, correlation_id=correlation_id)

    # All logs include correlation ID for tracing
    # end of snippet
    assert result["hash"]
    asked = metadata_service.asked("/hash", correlation_id=str(correlation_id))
    assert [record.headers["x-correlation-id"] for record in asked] == [str(correlation_id)]


async def test_health_checks(client: AsyncMetadataStampingClient) -> None:
    ready = False
    # the guide says
    # Check service health
    health = await client.health_check()
    if health["status"] == "healthy":
        # Service is ready
        ready = True

    # Validate connection
    is_connected = await client._validate_connection()
    # end of snippet
    assert ready
    assert is_connected


async def test_metrics_collection(
    client: AsyncMetadataStampingClient,
    onextree_client: AsyncOnexTreeClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # the guide says
    # Get client metrics
    metrics = client.get_metrics()
    print(f"Requests: {metrics['request_count']}")
    print(f"Errors: {metrics['error_count']}")
    print(f"Error rate: {metrics['error_rate']:.2%}")
    print(f"Circuit state: {metrics['circuit_breaker']['state']}")

    # For OnexTree: includes cache metrics
    cache_stats = onextree_client.get_cache_stats()
    print(f"Cache size: {cache_stats['cache_size']}")
    print(f"Hit rate: {cache_stats['hit_rate']:.2%}")
    # end of snippet
    assert capsys.readouterr().out.splitlines() == [
        "Requests: 0",
        "Errors: 0",
        "Error rate: 0.00%",
        "Circuit state: closed",
        "Cache size: 0",
        "Hit rate: 0.00%",
    ]


async def test_caching(onextree_url: str, onextree_service: RunningService) -> None:
    # the guide says
    # Enable caching (default)
    client = AsyncOnexTreeClient(
        base_url=onextree_url,
        enable_cache=True,
        cache_ttl=300,  # 5 minutes
    )

    # Cached automatically
    result1 = await client.get_intelligence(context="test")
    result2 = await client.get_intelligence(context="test")  # From cache

    # Bypass cache when needed
    result3 = await client.get_intelligence(context="test", use_cache=False)

    # Clear cache manually
    await client.clear_cache()

    # Check cache performance
    stats = client.get_cache_stats()
    # {
    #     "enabled": True,
    #     "cache_size": 42,
    #     "cache_hits": 150,
    #     "cache_misses": 50,
    #     "hit_rate": 0.75,
    #     "ttl_seconds": 300
    # }
    # end of snippet
    await client.close()
    assert result1 == result2
    assert not result3.degraded
    assert len(onextree_service.asked("/intelligence")) == 2
    assert {"enabled", "cache_size", "cache_hits", "cache_misses", "hit_rate", "ttl_seconds"} <= stats.keys()


# Error handling


async def handled(client: AsyncMetadataStampingClient, data: Any) -> None:
    # the guide says
    try:
        result = await client.generate_hash(file_data=data)

    except CircuitBreakerError:
        # Circuit breaker is open - fail fast
        logger.error("Service circuit breaker is open")

    except ServiceUnavailableError:
        # Service is down or unreachable
        logger.error("Service unavailable")

    except ClientError as e:
        # General client error
        logger.error(f"Client error: {e}")  # noqa: G004 - the guide's words

    except Exception as e:
        # Unexpected error
        logger.exception("Unexpected error")
    # end of snippet


async def test_error_handling_of_an_open_circuit(
    client: AsyncMetadataStampingClient, caplog: pytest.LogCaptureFixture
) -> None:
    await client.circuit_breaker.force_open()
    await handled(client, b"data")
    assert caplog.messages == ["Service circuit breaker is open"]


async def test_error_handling_of_a_service_that_is_down(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody_listens.getsockname()[1]}"
        async with AsyncMetadataStampingClient(url, max_retries=1) as client:
            await handled(client, b"data")
    assert caplog.messages == ["Service unavailable"]


async def test_error_handling_of_a_refusal(
    client: AsyncMetadataStampingClient, metadata_service: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    metadata_service.inject(Status(code=422, path="/hash"))
    await handled(client, b"data")
    assert caplog.messages[0].startswith("Client error: ")


async def test_error_handling_of_anything_else(
    client: AsyncMetadataStampingClient, caplog: pytest.LogCaptureFixture
) -> None:
    await handled(client, None)
    assert caplog.messages == ["Unexpected error"]


# Integration with NodeBridgeOrchestrator


class NodeBridgeOrchestrator:
    """Orchestrator with service client integration."""

    # the guide says
    def __init__(
        self,
        metadata_service_url: str = "http://localhost:8053",
        onextree_service_url: str = "http://localhost:8054",
    ):
        # Initialize service clients
        self.metadata_client = AsyncMetadataStampingClient(
            base_url=metadata_service_url, timeout=30.0, max_retries=3
        )

        self.onextree_client = AsyncOnexTreeClient(
            base_url=onextree_service_url, timeout=30.0, max_retries=3, enable_cache=True, cache_ttl=300
        )

    async def initialize(self):
        """Initialize all service clients."""
        await self.metadata_client.initialize()
        await self.onextree_client.initialize()

        # Validate connections
        metadata_ok = await self.metadata_client._validate_connection()
        onextree_ok = await self.onextree_client._validate_connection()

        if not (metadata_ok and onextree_ok):
            raise RuntimeError("Service connection validation failed")

    async def close(self):
        """Close all service clients."""
        await self.metadata_client.close()
        await self.onextree_client.close()

    async def process_with_intelligence(
        self, file_data: bytes, file_path: str, context: str, correlation_id: UUID
    ) -> dict:
        """Process file with metadata stamping and intelligence."""
        # Generate hash with MetadataStamping
        hash_result = await self.metadata_client.generate_hash(file_data=file_data, correlation_id=correlation_id)

        # Get intelligence from OnexTree
        intelligence = await self.onextree_client.get_intelligence(context=context, correlation_id=correlation_id)

        # Create stamp with intelligence data
        stamp = await self.metadata_client.create_stamp(
            file_hash=hash_result["hash"],
            file_path=file_path,
            file_size=len(file_data),
            stamp_data={"intelligence": intelligence, "context": context},
            correlation_id=correlation_id,
        )

        return {"hash": hash_result["hash"], "stamp": stamp, "intelligence": intelligence}

    # end of snippet


async def test_orchestrator(metadata_service: RunningService, onextree_service: RunningService) -> None:
    orchestrator = NodeBridgeOrchestrator(metadata_service.url, onextree_service.url)
    await orchestrator.initialize()
    correlation_id = uuid4()
    result = await orchestrator.process_with_intelligence(
        b"print('hello')", "/src/hello.py", "authentication patterns", correlation_id
    )
    await orchestrator.close()
    assert result["stamp"]["file_hash"] == result["hash"] == blake3(b"print('hello')").hexdigest()
    assert result["intelligence"]["intelligence"]["analysis_type"] == "security_analysis"
    asked = [*metadata_service.asked(), *onextree_service.asked()]
    assert [record.path for record in asked if record.correlation_id == str(correlation_id)] == [
        "/hash",
        "/stamp",
        "/intelligence",
    ]


async def test_orchestrator_without_a_service(metadata_service: RunningService) -> None:
    metadata_service.inject(Status(code=500))
    orchestrator = NodeBridgeOrchestrator(metadata_service.url, metadata_service.url)
    with pytest.raises(RuntimeError, match="Service connection validation failed"):
        await orchestrator.initialize()
    await orchestrator.close()


# Performance considerations


def test_connection_pooling() -> None:
    def configuration(limits: httpx.Limits) -> httpx.Limits:
        return limits

    ours = configuration(
        # the guide says
        limits=httpx.Limits(
            max_connections=100,  # Total connections
            max_keepalive_connections=20,  # Keep-alive pool
        )
        # end of snippet
    )
    assert ours == bottom.LIMITS


async def test_timeouts() -> None:
    circuit_breaker = CircuitBreaker("operation")

    async def operation() -> str:
        return "done"

    # the guide says
    # Client-level default timeout
    client = AsyncMetadataStampingClient(timeout=30.0)

    # Per-operation timeout override
    result = await circuit_breaker.call(
        operation,
        timeout=10.0,  # Override for this call
    )
    # end of snippet
    assert client.timeout == 30.0
    assert result == "done"


def test_caching_strategy() -> None:
    cache_size = 1001
    evicted: list[float] = []

    def evict_least_recently_used(ratio: float) -> None:
        evicted.append(ratio)

    # the guide says
    # Cache size management
    MAX_CACHE_SIZE = 1000  # noqa: N806 - the guide's name  # entries

    # Automatic eviction
    if cache_size > MAX_CACHE_SIZE:
        # Remove oldest 20% of entries
        evict_least_recently_used(0.2)
    # end of snippet
    assert MAX_CACHE_SIZE == AsyncOnexTreeClient.DEFAULT_CACHE_MAX_SIZE
    assert evicted == [AsyncOnexTreeClient.DEFAULT_CACHE_EVICTION_RATIO]


# Security considerations


def test_error_message_sanitization() -> None:
    with pytest.raises(ClientError, match="Service request failed"):
        # the guide says
        # Good: Generic error message
        raise ClientError("Service request failed")

        # Bad: Leaking internal details
        # raise ClientError(f"Database connection failed: {db_connection_string}")
        # end of snippet


async def test_timeout_protection(client: AsyncMetadataStampingClient) -> None:
    operation = client.health_check
    # the guide says
    # All operations have timeouts
    await asyncio.wait_for(operation(), timeout=30.0)
    # end of snippet


# Monitoring and observability


def test_structured_logging(caplog: pytest.LogCaptureFixture) -> None:
    correlation_id, file_data = uuid4(), b"data"
    caplog.set_level(logging.INFO)
    # the guide says
    logger.info(
        "Hash generation completed",
        extra={"correlation_id": str(correlation_id), "file_size": len(file_data), "execution_time_ms": 1.5},
    )
    # end of snippet
    assert caplog.messages == ["Hash generation completed"]


def test_metrics_export(client: AsyncMetadataStampingClient) -> None:
    class Registry:
        gauges: dict[str, float]

        def register_metrics(self, metrics: dict[str, Any]) -> None:
            self.gauges = {name: value for name, value in metrics.items() if isinstance(value, int | float)}

    prometheus_registry = Registry()
    # the guide says
    metrics = client.get_metrics()
    # Export to Prometheus, StatsD, etc.
    prometheus_registry.register_metrics(metrics)
    # end of snippet
    assert prometheus_registry.gauges == {"request_count": 0, "error_count": 0, "error_rate": 0.0}


async def test_health_endpoints(client: AsyncMetadataStampingClient, onextree_client: AsyncOnexTreeClient) -> None:
    app = FastAPI()
    metadata_client = client
    all_healthy = True

    # the guide says
    @app.get("/health")
    async def health():
        metadata_health = await metadata_client.health_check()
        onextree_health = await onextree_client.health_check()

        return {
            "status": "healthy" if all_healthy else "degraded",
            "services": {"metadata": metadata_health, "onextree": onextree_health},
        }

    # end of snippet
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as browser:
        answer = (await browser.get("/health")).json()
    assert answer["status"] == "healthy"
    assert answer["services"]["metadata"]["status"] == answer["services"]["onextree"]["status"] == "healthy"


# Troubleshooting


def test_circuit_breaker_opens_too_frequently() -> None:
    # the guide says
    config = CircuitBreakerConfig(
        failure_threshold=10,  # Increase threshold
        recovery_timeout=120,  # Longer recovery period
    )
    # end of snippet
    client = AsyncMetadataStampingClient(circuit_breaker_config=config)
    assert client.circuit_breaker.config is config


async def test_circuit_breaker_does_not_open_when_it_should() -> None:
    # the guide says
    config = CircuitBreakerConfig(
        failure_threshold=5,
        minimum_throughput=10,  # Needs at least 10 calls
    )
    # end of snippet
    breaker = CircuitBreaker("service", config)

    async def fail() -> None:
        raise ConnectionError

    for calls in range(1, 11):
        with pytest.raises(ConnectionError):
            await breaker.call(fail)
        assert (breaker.state is CircuitState.OPEN) is (calls == 10)


async def test_stale_data_in_cache(onextree_client: AsyncOnexTreeClient) -> None:
    await onextree_client.get_intelligence("test")
    # the guide says
    # Shorter TTL
    client = AsyncOnexTreeClient(cache_ttl=60)

    # Or clear cache
    await client.clear_cache()
    # end of snippet
    assert client.cache_ttl == 60
    await onextree_client.clear_cache()
    assert onextree_client.get_cache_stats()["cache_size"] == 0


async def test_memory_usage_from_cache(
    onextree_client: AsyncOnexTreeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = onextree_client
    await client.get_intelligence("test")
    rounds: list[float] = []

    async def an_hour_passes(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) > 1:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", an_hour_passes)

    # the guide says
    # Periodic cache cleanup
    async def cleanup_task():
        while True:
            await asyncio.sleep(3600)  # Every hour
            await client.clear_cache()

    # end of snippet
    with pytest.raises(asyncio.CancelledError):
        await cleanup_task()
    assert rounds == [3600, 3600]
    assert client.get_cache_stats()["cache_size"] == 0


async def test_service_unavailable_errors(client: AsyncMetadataStampingClient) -> None:
    # the guide says
    # Verify service is running
    health = await client.health_check()

    # Adjust retry attempts
    client = AsyncMetadataStampingClient(
        max_retries=5  # More retries
    )
    # end of snippet
    assert health["status"] == "healthy"
    assert client.retry.attempts == 5
