"""wire-contract.md, part 5, from row 17: errors, health, limits, circuits, and an application in this process.

Where the sandbox does not speak a shape that the wild has, a small application in this process does (`app=`).
"""

from typing import Any
from uuid import uuid4

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse

from bridge_tasks.clients import (
    AsyncMetadataStampingClient,
    AsyncOnexTreeClient,
    CircuitState,
    ClientError,
    ServiceUnavailableError,
)
from bridge_tasks.sandbox import metadata_service
from bridge_tasks.sandbox.backend import Limits
from bridge_tasks.sandbox.refusals import Dialect
from tests.clients.in_process import AT_ONCE, metadata_client, saying, success
from tests.clients.stamping_jobs import hash_of, new_text, stamp
from tests.running_service import RunningService

# Rows 17, 18: errors


async def test_the_http_status_counts_and_not_the_one_in_the_metadata(
    metadata_services: dict[Dialect, RunningService],
) -> None:
    async with AsyncMetadataStampingClient(metadata_services["service"].url) as client:
        with pytest.raises(ClientError) as raised:
            await client.batch_create_stamps([])
    assert (raised.value.status, raised.value.code) == (400, "EMPTY_BATCH_REQUEST")


@pytest.mark.parametrize("dialect", ["service", "guide"])
async def test_too_large_is_a_refusal_of_one_try_that_leaves_the_circuit_closed(dialect: Dialect) -> None:
    app = metadata_service.create_app(dialect, limits=Limits(content=10, upload=10))
    async with AsyncMetadataStampingClient(app=app, retry=AT_ONCE) as client:
        for _ in range(6):
            with pytest.raises(ClientError) as raised:
                await client.generate_hash(b"x" * 11)
            assert (raised.value.status, raised.value.retryable) == (413, False)
        assert client.circuit_breaker.state is CircuitState.CLOSED


# Rows 19, 20: health and metrics


async def test_either_service_is_well_and_connected(client: AsyncMetadataStampingClient) -> None:
    assert (await client.health_check())["status"] in {"healthy", "ok", "success"}
    assert await client._validate_connection() is True


@pytest.mark.parametrize(("status", "connected"), [("healthy", True), ("degraded", True), ("unhealthy", False)])
async def test_health_in_an_envelope_is_what_its_data_says(status: str, connected: bool) -> None:
    async with metadata_client(success({"status": status})) as client:
        assert await client._validate_connection() is connected


async def test_metrics_come_out_of_their_envelope(client: AsyncMetadataStampingClient) -> None:
    await client.generate_hash(b"test")
    metrics = await client.get_service_metrics()
    assert metrics["hash_generation"]["total_operations"] >= 1
    assert "database" in metrics


async def test_metrics_that_are_prometheus_text_are_a_client_error() -> None:
    async with metadata_client(PlainTextResponse("# TYPE x counter")) as client:
        with pytest.raises(ClientError, match="other than a JSON object"):
            await client.get_service_metrics()


async def test_a_redirect_is_a_client_error_and_not_followed() -> None:
    async with metadata_client(RedirectResponse("/metrics/"), success({})) as client:
        with pytest.raises(ClientError, match="307"):
            await client.get_service_metrics()


# Row 24: rate limits


@pytest.mark.parametrize("hint", ["0", "Thu, 01 Jan 2015 00:00:00 GMT"])
async def test_a_429_is_tried_again_after_its_hint_and_is_no_failure(hint: str) -> None:
    limited = JSONResponse({}, 429, {"Retry-After": hint})
    async with metadata_client(limited, limited, success({"hash": "ab"})) as client:
        assert (await client.generate_hash(b"test"))["hash"] == "ab"
        assert client.circuit_breaker.metrics.failure_count == 0


async def test_a_429_that_lasts_is_unavailable_with_the_time_to_wait() -> None:
    async with metadata_client(JSONResponse({}, 429, {"Retry-After": "1200"})) as client:
        with pytest.raises(ServiceUnavailableError) as raised:
            await client.generate_hash(b"test")
    assert (raised.value.status, raised.value.retry_after) == (429, 1200.0)
    assert raised.value.retryable


# Row 35: an application in this process


@pytest.mark.parametrize("dialect", ["service", "guide"])
async def test_the_whole_client_works_on_an_application_in_this_process(dialect: Dialect) -> None:
    async with AsyncMetadataStampingClient(app=metadata_service.create_app(dialect)) as client:
        text = new_text()
        assert (await client.generate_hash(text.encode()))["hash"] == hash_of(text)
        stamped = await stamp(client, text)
        assert (await client.validate_stamp(stamped["stamped_content"]))["is_valid"]
        assert await client.get_stamp(hash_of(text)) is not None
        assert await client._validate_connection()


async def test_the_request_of_an_application_s_client_can_be_watched() -> None:  # behaviours, row 54
    seen: list[str] = []
    async with AsyncOnexTreeClient(app=saying(success({"intelligence": {}}))) as client:
        assert client._http_client is not None
        real = client._http_client.request

        async def watched(*arguments: Any, headers: dict[str, str], **given: Any) -> Any:
            seen.append(headers["X-Correlation-ID"])
            return await real(*arguments, headers=headers, **given)

        client._http_client.request = watched  # type: ignore[method-assign, assignment] # as the guide's tests do
        await client.get_intelligence("auth", correlation_id="abc")
    assert seen == ["abc"]


# Rows 37, 38: stamps and protocols


async def test_a_stamped_text_follows_the_protocol_of_its_service(client: AsyncMetadataStampingClient) -> None:
    stamped = (await stamp(client, new_text()))["stamped_content"]
    assert (await client.validate_protocol(stamped))["validation_result"]["is_valid"] is True
    verdict = (await client.validate_protocol("plain"))["validation_result"]
    assert verdict["is_valid"] is False
    assert verdict["issues"]


async def test_a_namespace_lists_its_stamps(client: AsyncMetadataStampingClient) -> None:
    namespace = f"tests.{uuid4()}"
    for _ in range(3):
        await stamp(client, new_text(), namespace=namespace)
    listed = await client.query_namespace(namespace, limit=2, offset=0)
    assert (listed["total_stamps"], len(listed["stamps"])) == (3, 2)


# Row 41: what opens the circuit


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
async def test_a_4xx_never_opens_the_circuit(status: int) -> None:
    async with metadata_client(JSONResponse({"detail": "no"}, status)) as client:
        for _ in range(20):
            with pytest.raises(ClientError):
                await client.generate_hash(b"test")
        assert client.circuit_breaker.state is CircuitState.CLOSED


async def test_an_answer_of_200_that_says_error_never_opens_the_circuit() -> None:
    async with metadata_client(JSONResponse({"status": "error", "error": "no"})) as client:
        for _ in range(20):
            with pytest.raises(ClientError):
                await client.generate_hash(b"test")
        assert client.circuit_breaker.state is CircuitState.CLOSED


async def test_five_500s_open_it() -> None:  # row 40: the default throughput is five
    async with metadata_client(JSONResponse({}, 500)) as client:
        for calls in range(1, 6):
            with pytest.raises(ClientError):
                await client.generate_hash(b"test")
            assert (client.circuit_breaker.state is CircuitState.OPEN) is (calls == 5)


# The correlation id goes all the way


async def test_a_correlation_id_reaches_the_service_with_every_request(
    client: AsyncMetadataStampingClient, metadata: RunningService
) -> None:
    correlation_id = uuid4()
    await client.generate_hash(b"test", correlation_id=correlation_id)
    await stamp(client, new_text(), correlation_id=correlation_id)
    await client.validate_stamp("text", correlation_id=correlation_id)
    await client.get_stamp("ab" * 32, correlation_id=correlation_id)
    carried = metadata.asked(correlation_id=str(correlation_id))
    assert len(carried) == 4 + 1, "four calls, and the question where the routes are"
    assert carried == metadata.asked()
    agents = {record.headers["user-agent"] for record in metadata.asked()}
    assert agents == {"omninode-bridge/MetadataStampingService"}
