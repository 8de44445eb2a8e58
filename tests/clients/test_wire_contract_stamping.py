"""wire-contract.md, part 5, rows 1 to 16: hashes, stamps and batches against both real dialects.

Where the sandbox does not speak a shape that the wild has, a small application in this process does (`app=`).
"""

import asyncio

import pytest
from blake3 import blake3
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge_tasks.clients import (
    AsyncMetadataStampingClient,
    CircuitState,
    ClientError,
    ServiceUnavailableError,
)
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.sandbox.refusals import Dialect
from tests.clients.in_process import AT_ONCE, PREFIX, metadata_client, saying, success
from tests.clients.mocked import answering
from tests.clients.stamping_jobs import hash_of, item, new_text, stamp
from tests.running_service import RunningService

EMPTY_HASH = blake3(b"").hexdigest()


# Row 1: the prefix


async def test_a_base_url_works_with_the_prefix_and_without(
    metadata_services: dict[Dialect, RunningService],
) -> None:
    service = metadata_services["service"]
    for base_url in (service.url, service.url + PREFIX, service.url + PREFIX + "/"):
        async with AsyncMetadataStampingClient(base_url) as client:
            assert (await client.generate_hash(b"test"))["hash"] == blake3(b"test").hexdigest()


async def test_where_the_routes_are_is_found_out_once(
    client: AsyncMetadataStampingClient, metadata: RunningService
) -> None:
    for _ in range(3):
        await client.generate_hash(b"test")
    probes = [record for record in metadata.asked() if record.path.endswith("/health")]
    hashes = [record.path for record in metadata.asked("/hash")]
    assert len(probes) == 1
    assert hashes == [("" if metadata.dialect == "guide" else PREFIX) + "/hash"] * 3
    assert client.circuit_breaker.metrics.failure_count == 0


async def test_a_base_url_with_the_prefix_needs_no_probe(metadata_services: dict[Dialect, RunningService]) -> None:
    service = metadata_services["service"]
    service.reset()
    async with AsyncMetadataStampingClient(service.url + PREFIX) as client:
        await client.generate_hash(b"test")
    assert [record.path for record in service.asked()] == [f"{PREFIX}/hash"]


async def test_an_outage_while_looking_for_the_routes_decides_nothing() -> None:
    app = saying(JSONResponse({}, 500), JSONResponse({"detail": "Not Found"}, 404), success({"hash": "ab"}))
    async with AsyncMetadataStampingClient(app=app, retry=AT_ONCE) as client:
        with pytest.raises(ClientError):
            await client.generate_hash(b"test")
        assert (await client.generate_hash(b"test"))["hash"] == "ab"


# Rows 2, 3, 21, 22, 23: stamps


async def test_content_is_stamped_by_either_service(
    client: AsyncMetadataStampingClient, metadata: RunningService
) -> None:
    text = new_text()
    result = await stamp(client, text, stamp_data={"author": "tests"}, namespace="omninode.bridge")
    assert result["stamp_id"]
    assert result["stamped_content"].endswith(text)
    assert result["requested_hash"] == result["file_hash"] == hash_of(text)
    assert result["namespace"] == "omninode.bridge", f"as asked for, of {metadata.dialect}"


async def test_without_content_the_guide_s_service_stamps_and_the_real_one_says_what_it_needs(
    client: AsyncMetadataStampingClient, metadata: RunningService
) -> None:
    if metadata.dialect == "guide":
        assert (await stamp(client, new_text(), content=None))["stamp_id"]
        return
    with pytest.raises(ClientError, match=r"body\.content") as raised:
        await stamp(client, new_text(), content=None)
    assert raised.value.status == 422
    assert not raised.value.retryable


async def test_the_caller_s_hash_stays_under_its_own_key_where_the_service_cleans_the_text(
    metadata_services: dict[Dialect, RunningService],
) -> None:
    text = f"  {new_text()}\n"
    async with AsyncMetadataStampingClient(metadata_services["service"].url) as client:
        result = await stamp(client, text)
    assert result["requested_hash"] == hash_of(text)
    assert result["file_hash"] == result["hash"] == hash_of(text.strip())


async def test_stamping_twice_is_harmless(client: AsyncMetadataStampingClient) -> None:
    text = new_text()
    first, second = await stamp(client, text), await stamp(client, text)
    assert first["stamp_id"] == second["stamp_id"]


# Row 4: hashes


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00\xff" * 50_000])
async def test_a_hash_has_both_names(data: bytes, client: AsyncMetadataStampingClient) -> None:
    result = await client.generate_hash(data)
    assert result["hash"] == result["file_hash"] == blake3(data).hexdigest()
    assert result["file_size_bytes"] == len(data)
    assert result["execution_time_ms"] >= 0
    assert result["performance_grade"] in {"A", "B", "C"}


async def test_ten_hashes_at_once_are_all_right(client: AsyncMetadataStampingClient) -> None:  # behaviours, row 72
    results = await asyncio.gather(*(client.generate_hash(str(n).encode()) for n in range(10)))
    assert [result["hash"] for result in results] == [hash_of(str(n)) for n in range(10)]


# Rows 5 to 8: validation


async def test_a_fresh_stamp_is_valid_and_both_shapes_keys_are_there(client: AsyncMetadataStampingClient) -> None:
    stamped = await stamp(client, new_text())
    verdict = await client.validate_stamp(stamped["stamped_content"])
    assert verdict["validation_result"] is verdict["is_valid"] is True
    assert (verdict["stamps_found"], verdict["valid_stamps"], verdict["invalid_stamps"]) == (1, 1, 0)
    assert verdict["details"] == verdict["validation_details"]
    assert verdict["details"][0]["is_valid"] is True


async def test_a_changed_text_is_not_valid(client: AsyncMetadataStampingClient) -> None:
    stamped = await stamp(client, new_text())
    verdict = await client.validate_stamp(stamped["stamped_content"] + " changed")
    assert (verdict["validation_result"], verdict["valid_stamps"], verdict["invalid_stamps"]) == (False, 0, 1)


@pytest.mark.parametrize("text", ["", "plain", "[STAMP:1] content [STAMP:2]"])  # behaviours, row 77
async def test_a_text_without_stamps_is_an_answer(text: str, client: AsyncMetadataStampingClient) -> None:
    verdict = await client.validate_stamp(text)
    assert (verdict["validation_result"], verdict["stamps_found"], verdict["details"]) == (False, 0, [])


async def test_the_crash_of_the_known_service_on_a_text_without_stamps_is_that_answer_too() -> None:
    crash = JSONResponse({"detail": {"status": "error", "error": [{"code": "UNEXPECTED_ERROR"}]}}, 500)
    async with metadata_client(crash) as client:
        for _ in range(10):
            verdict = await client.validate_stamp("plain")
            assert (verdict["validation_result"], verdict["stamps_found"]) == (False, 0)
        assert client.circuit_breaker.state is CircuitState.CLOSED
        with pytest.raises(ClientError):
            await client.validate_stamp(f"# ONEX:uid=1,hash={'ab' * 32},ts=2026-01-01T00:00:00+00:00\ntext")


async def test_an_expected_hash_is_checked_where_the_service_can(
    metadata_services: dict[Dialect, RunningService],
) -> None:
    async with AsyncMetadataStampingClient(metadata_services["service"].url) as client:
        text = new_text()
        stamped = (await stamp(client, text))["stamped_content"]
        assert (await client.validate_stamp(stamped, expected_hash=hash_of(text)))["is_valid"]
        assert not (await client.validate_stamp(stamped, expected_hash="00" * 32))["is_valid"]


async def test_values_that_the_service_gives_are_kept() -> None:
    given = {"is_valid": True, "stamps_found": 7, "valid_stamps": 7, "invalid_stamps": 0, "details": []}
    async with metadata_client(JSONResponse({"status": "partial", "data": given})) as client:
        verdict = await client.validate_stamp("text")
    assert {key: verdict[key] for key in given} == given


# Rows 9 to 12: batches


async def test_a_batch_has_both_names_for_its_counts_and_results_in_order(
    client: AsyncMetadataStampingClient,
) -> None:
    texts = [new_text() for _ in range(3)]
    result = await client.batch_create_stamps([item(text) for text in texts])
    assert (result["total"], result["successful"], result["failed"]) == (3, 3, 0)
    assert (result["total_items"], result["successful_items"], result["failed_items"]) == (3, 3, 0)
    assert [one["file_hash"] for one in result["results"]] == [hash_of(text) for text in texts]


async def test_one_bad_item_does_not_spoil_the_others(client: AsyncMetadataStampingClient) -> None:
    text = new_text()
    result = await client.batch_create_stamps([item(text), item(text)])
    assert (result["total"], result["successful"], result["failed"]) == (2, 1, 1)
    assert [one["success"] for one in result["results"]] == [True, False]


async def test_a_batch_of_which_everything_failed_is_an_error_that_holds_the_results(
    client: AsyncMetadataStampingClient,
) -> None:
    text = new_text()
    await client.batch_create_stamps([item(text)])
    with pytest.raises(ClientError, match="Batch stamping failed") as raised:
        await client.batch_create_stamps([item(text)])
    assert raised.value.data is not None
    assert [one["success"] for one in raised.value.data["results"]] == [False]


async def test_an_item_s_own_namespace_wins_over_the_batch_s(client: AsyncMetadataStampingClient) -> None:
    own, other = new_text(), new_text()
    await client.batch_create_stamps([item(own, namespace="own"), item(other)], namespace="batch")
    for text, namespace in ((own, "own"), (other, "batch")):
        found = await client.get_stamp(hash_of(text), namespace=namespace)
        assert found is not None
        assert found["namespace"] == namespace


async def test_an_item_without_content_is_refused_for_a_service_that_would_stamp_empty_text(
    client: AsyncMetadataStampingClient, metadata: RunningService
) -> None:
    bare = {key: value for key, value in item(new_text()).items() if key != "content"}
    if metadata.dialect == "guide":
        assert (await client.batch_create_stamps([bare]))["successful"] == 1
        return
    with pytest.raises(InvalidRequest) as refused:
        await client.batch_create_stamps([bare])
    assert refused.value.field == "items.0.content"
    assert metadata.asked("/batch") == []


async def test_an_item_that_was_stamped_as_empty_text_after_all_has_failed() -> None:
    emptied = {"success": True, "file_hash": EMPTY_HASH, "stamp_id": "1"}
    data = {"total_items": 1, "successful_items": 1, "failed_items": 0, "results": [emptied]}
    client = AsyncMetadataStampingClient("http://service")
    with answering(client, {"status": "success", "data": data}):
        bare = {key: value for key, value in item("text").items() if key != "content"}
        result = await client.batch_create_stamps([bare])
    assert (result["successful"], result["failed"], result["successful_items"], result["failed_items"]) == (
        0,
        1,
        0,
        1,
    )
    assert result["results"][0]["success"] is False


async def test_a_batch_that_may_have_arrived_is_not_sent_again() -> None:  # row 23
    asked = []

    async def answer(request: Request) -> Response:
        asked.append(request.url.path)
        return JSONResponse({}, 504)

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])
    async with AsyncMetadataStampingClient(f"http://in-process{PREFIX}", app=app, retry=AT_ONCE) as client:
        with pytest.raises(ServiceUnavailableError):
            await client.batch_create_stamps([item("text")])
        assert len(asked) == 1
        with pytest.raises(ServiceUnavailableError):
            await stamp(client, "text")
        assert len(asked) == 1 + 3


# Rows 13 to 16: looking a stamp up


async def test_a_stamp_is_found_with_its_id_and_its_real_namespace(client: AsyncMetadataStampingClient) -> None:
    text = new_text()
    made = await stamp(client, text, namespace="omninode.bridge")
    found = await client.get_stamp(hash_of(text), namespace="omninode.bridge")
    assert found is not None
    assert (found["stamp_id"], found["file_hash"]) == (made["stamp_id"], hash_of(text))
    assert found["namespace"] == "omninode.bridge"


async def test_a_hash_in_capitals_is_the_same_hash(client: AsyncMetadataStampingClient) -> None:
    text = new_text()
    await stamp(client, text)
    assert await client.get_stamp(hash_of(text).upper()) is not None


@pytest.mark.parametrize("absent", ["ab" * 32, "blake3_nonexistent_hash_12345678", "invalid_hash_format"])
async def test_no_stamp_is_none_and_no_failure(absent: str, client: AsyncMetadataStampingClient) -> None:
    for _ in range(6):
        assert await client.get_stamp(absent) is None
    assert client.circuit_breaker.state is CircuitState.CLOSED
    assert client.get_metrics()["error_count"] == 0


async def test_a_stamp_in_another_namespace_is_none(client: AsyncMetadataStampingClient) -> None:
    text = new_text()
    await stamp(client, text, namespace="one")
    assert await client.get_stamp(hash_of(text), namespace="another") is None


async def test_a_wrong_base_url_is_not_mistaken_for_an_absent_stamp(
    onextree_services: dict[Dialect, RunningService],
) -> None:
    async with AsyncMetadataStampingClient(onextree_services["service"].url) as client:
        with pytest.raises(ClientError, match="no such route: check its URL"):
            await client.get_stamp("ab" * 32)


async def test_a_service_without_a_database_is_unavailable_and_not_empty() -> None:
    down = JSONResponse({"detail": {"error": [{"code": "DATABASE_NOT_CONFIGURED", "message": "x"}]}}, 503)
    async with metadata_client(down) as client:
        with pytest.raises(ServiceUnavailableError) as raised:
            await client.get_stamp("ab" * 32)
    assert raised.value.code == "DATABASE_NOT_CONFIGURED"
