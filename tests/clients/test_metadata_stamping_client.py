"""`AsyncMetadataStampingClient` over a mocked `_http_client`: behaviours.md, part 3 (rows in comments)."""

import io
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import BaseModel

from bridge_tasks.clients import AsyncMetadataStampingClient, ClientError
from bridge_tasks.errors import InvalidRequest
from tests.clients.mocked import answering, response

HASH = "ab" * 32
NAMESPACE = "omninode.services.metadata"
STAMPED = {"status": "success", "data": {"stamp_id": "1", "file_hash": HASH, "namespace": NAMESPACE, "version": 1}}
ERROR = {"status": "error", "error": "no luck"}
ITEM = {"file_hash": HASH, "file_path": "/a", "file_size": 0, "stamp_data": {"k": "v"}}


@pytest.fixture
def client() -> AsyncMetadataStampingClient:
    return AsyncMetadataStampingClient("http://service:8053")


def test_the_defaults() -> None:  # row 68
    client = AsyncMetadataStampingClient()
    assert client.base_url == "http://192.168.86.200:8057"
    assert client.service_name == "MetadataStampingService"
    assert (client.timeout, client.max_retries) == (30.0, 3)


def test_custom_values_are_kept() -> None:  # row 68
    client = AsyncMetadataStampingClient("http://custom:9000", 60.0, 5)
    assert (client.base_url, client.timeout, client.max_retries) == ("http://custom:9000", 60.0, 5)


async def test_generate_hash_uploads_and_returns_the_payload(client: AsyncMetadataStampingClient) -> None:
    # rows 69, 70, 84
    data = {"hash": HASH, "execution_time_ms": 0.5, "performance_grade": "A", "file_size_bytes": 4}
    with answering(client, {"status": "success", "data": data}) as http:
        result = await client.generate_hash(b"test")
    assert {key: result[key] for key in data} == data
    sent = http.request.call_args.kwargs
    assert (sent["method"], sent["params"]) == ("POST", {"namespace": "default"})
    assert sent["files"] == {"file": ("data", b"test", "application/octet-stream")}


async def test_generate_hash_takes_a_namespace(client: AsyncMetadataStampingClient) -> None:  # row 69
    with answering(client, {"status": "success", "data": {"hash": HASH}}) as http:
        await client.generate_hash(file_data=b"test", namespace="custom", correlation_id=uuid4())
    assert http.request.call_args.kwargs["params"]["namespace"] == "custom"


def closed_file() -> io.BytesIO:
    file = io.BytesIO(b"gone")
    file.close()
    return file


class Pipe(io.RawIOBase):
    """A stream that only goes forward: it could not be sent a second time."""


@pytest.mark.parametrize(
    "data",
    ["text", None, 7, ["bytes"], io.StringIO("text"), closed_file(), Pipe()],
    ids=lambda data: type(data).__name__,
)
async def test_what_is_neither_bytes_nor_a_file_is_not_hashed(
    data: Any, client: AsyncMetadataStampingClient
) -> None:
    with answering(client, STAMPED) as http, pytest.raises(InvalidRequest, match="file_data"):
        await client.generate_hash(data)
    http.request.assert_not_called()


@pytest.mark.parametrize("data", [b"test", bytearray(b"test"), memoryview(b"test")], ids=type)
async def test_any_bytes_will_do(data: bytes, client: AsyncMetadataStampingClient) -> None:
    with answering(client, {"status": "success", "data": {"hash": HASH}}) as http:
        await client.generate_hash(data)
    assert http.request.call_args.kwargs["files"]["file"][1] == b"test"


async def test_an_open_file_is_handed_on_to_be_streamed(client: AsyncMetadataStampingClient) -> None:
    file = io.BytesIO(b"test")
    with answering(client, {"status": "success", "data": {"hash": HASH}}) as http:
        await client.generate_hash(file)
    assert http.request.call_args.kwargs["files"]["file"][1] is file


async def test_create_stamp_sends_the_guide_s_fields_and_returns_the_payload(
    client: AsyncMetadataStampingClient,
) -> None:  # rows 73, 74
    with answering(client, STAMPED) as http:
        stamp = await client.create_stamp(HASH, "/path/to/file", 100, {"key": "value"})
    assert (stamp["file_hash"], stamp["namespace"], stamp["version"]) == (HASH, NAMESPACE, 1)
    sent = http.request.call_args.kwargs
    assert sent["method"] == "POST"
    assert sent["url"].endswith("/stamp")
    assert sent["json"] == {
        "file_hash": HASH,
        "file_path": "/path/to/file",
        "file_size": 100,
        "content_type": None,
        "stamp_data": {"key": "value"},
        "namespace": NAMESPACE,
    }


async def test_create_stamp_makes_plain_json_of_models_and_uuids(client: AsyncMetadataStampingClient) -> None:
    class Model(BaseModel):
        at: UUID

    identity = uuid4()
    with answering(client, STAMPED) as http:
        await client.create_stamp(HASH, "/a", 1, {"model": Model(at=identity), "id": identity})
    assert http.request.call_args.kwargs["json"]["stamp_data"] == {
        "model": {"at": str(identity)},
        "id": str(identity),
    }


async def test_create_stamp_refuses_what_json_cannot_carry(client: AsyncMetadataStampingClient) -> None:
    itself: dict[str, Any] = {}
    itself["itself"] = itself
    with answering(client, STAMPED) as http:
        for stamp_data in ({"file": object()}, itself, 7):
            with pytest.raises(InvalidRequest) as refused:
                await client.create_stamp(HASH, "/a", 1, stamp_data)  # type: ignore[arg-type] # refused, whatever it is
            assert refused.value.field == "stamp_data"
    http.request.assert_not_called()


@pytest.mark.parametrize("unfit", [2**64, "\ud800"])
async def test_a_number_or_text_beyond_json_is_refused_before_it_is_sent(unfit: Any) -> None:
    async def unreachable(*_: Any) -> None:
        pytest.fail("the request was sent")

    async with AsyncMetadataStampingClient("http://service/api/v1/metadata-stamping", app=unreachable) as client:
        with pytest.raises(InvalidRequest):
            await client.create_stamp(HASH, "/a", 1, {"value": unfit})


async def test_validate_stamp_returns_the_verdict(client: AsyncMetadataStampingClient) -> None:  # row 76
    data = {"validation_result": True, "stamps_found": 2, "valid_stamps": 2, "invalid_stamps": 0, "details": []}
    for status in ("success", "partial"):
        with answering(client, {"status": status, "data": data}) as http:
            result = await client.validate_stamp(content="content with stamps", namespace="n")
        assert {key: result[key] for key in data} == data
        assert http.request.call_args.kwargs["json"] == {"content": "content with stamps", "namespace": "n"}


async def test_get_stamp_returns_the_payload(client: AsyncMetadataStampingClient) -> None:  # row 78
    with answering(client, STAMPED) as http:
        stamp = await client.get_stamp(HASH, namespace=NAMESPACE)
    assert stamp is not None
    assert (stamp["stamp_id"], stamp["file_hash"]) == ("1", HASH)
    assert http.request.call_args.kwargs["method"] == "GET"
    assert http.request.call_args.kwargs["params"] == {"namespace": NAMESPACE}


async def test_get_stamp_sends_a_namespace_only_when_there_is_one(client: AsyncMetadataStampingClient) -> None:
    with answering(client, STAMPED) as http:  # row 78
        await client.get_stamp(HASH)
    assert http.request.call_args.kwargs["params"] is None


async def test_get_stamp_is_none_when_the_body_says_error(client: AsyncMetadataStampingClient) -> None:  # row 78
    with answering(client, ERROR):
        assert await client.get_stamp("blake3_nonexistent_hash_12345678") is None


async def test_get_stamp_quotes_a_hash_that_is_none(client: AsyncMetadataStampingClient) -> None:
    with answering(client, ERROR) as http:
        await client.get_stamp("../health?x=1#y")
    assert http.request.call_args.kwargs["url"].endswith("/stamp/..%2Fhealth%3Fx%3D1%23y")


async def test_a_batch_is_sent_in_one_request(client: AsyncMetadataStampingClient) -> None:  # row 79
    data = {"total": 1, "successful": 1, "failed": 0, "results": [{"success": True}]}
    for status in ("success", "partial"):
        with answering(client, {"status": status, "data": data}) as http:
            result = await client.batch_create_stamps([ITEM])
        assert {key: result[key] for key in data} == data
        sent = http.request.call_args.kwargs["json"]
        assert sent["namespace"] == NAMESPACE
        assert {key: sent["items"][0][key] for key in ITEM} == ITEM


@pytest.mark.parametrize("field", ["file_hash", "file_path", "file_size", "stamp_data"])
async def test_a_batch_item_that_lacks_a_field_is_refused_by_name_before_any_request(
    field: str, client: AsyncMetadataStampingClient
) -> None:  # row 79
    short = {key: value for key, value in ITEM.items() if key != field}
    with answering(client, STAMPED) as http, pytest.raises(InvalidRequest) as refused:
        await client.batch_create_stamps([ITEM, short])
    assert refused.value.field == f"items.1.{field}"
    http.request.assert_not_called()


@pytest.mark.parametrize("item", [7, None, "text", {**ITEM, "stamp_data": {"x": object()}}])
async def test_a_batch_item_that_is_no_json_object_is_refused(
    item: Any, client: AsyncMetadataStampingClient
) -> None:
    with answering(client, STAMPED) as http, pytest.raises(InvalidRequest) as refused:
        await client.batch_create_stamps([item])
    assert refused.value.field == "items.0"
    http.request.assert_not_called()


async def test_service_metrics_are_the_whole_body(client: AsyncMetadataStampingClient) -> None:  # row 80
    body = {"hash_generation": {"total_operations": 7}, "database": {"connected": True}}
    with answering(client, body) as http:
        assert await client.get_service_metrics() == body
    assert http.request.call_args.kwargs["url"].endswith("/metrics")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda client: client.generate_hash(b"test"), "Hash generation failed: no luck"),  # row 71
        (lambda client: client.create_stamp(HASH, "/a", 1, {}), "Stamp creation failed: no luck"),  # row 74
        (lambda client: client.validate_stamp("text"), "Stamp validation failed: no luck"),  # row 76
        (lambda client: client.validate_protocol("text"), "Protocol validation failed: no luck"),
        (lambda client: client.batch_create_stamps([ITEM]), "Batch stamping failed: no luck"),  # row 79
        (lambda client: client.query_namespace("n"), "Namespace query failed: no luck"),
    ],
)
async def test_an_envelope_that_says_error_is_a_client_error(
    call: Any, words: str, client: AsyncMetadataStampingClient
) -> None:
    with answering(client, ERROR), pytest.raises(ClientError, match=words):
        await call(client)
    assert client.get_metrics()["error_count"] == 1


async def test_an_outage_is_raised_and_never_papered_over(client: AsyncMetadataStampingClient) -> None:  # row 81
    with answering(client, httpx.ReadTimeout("slow")), pytest.raises(ClientError):
        await client.create_stamp(HASH, "/a", 1, {})


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"detail": "Not Found"}),
        (404, {"detail": "no such tenant"}),
        (404, {}),
        (400, {"detail": "bad gateway rule"}),
        (400, {"detail": {"status": "error", "error": [{"code": "SOMETHING_ELSE", "message": "no"}]}}),
    ],
)
async def test_a_404_or_400_that_says_nothing_of_stamps_is_no_proof_of_absence(
    status: int, body: Any, client: AsyncMetadataStampingClient
) -> None:  # contract 5, rows 14, 15
    with answering(client, response(status, body)), pytest.raises(ClientError) as raised:
        await client.get_stamp(HASH)
    assert raised.value.status == status
    assert client.get_metrics()["error_count"] == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"detail": {"status": "error", "error": [{"code": "STAMP_NOT_FOUND", "message": "none"}]}}),
        (404, {"detail": {"error": [{"code": "STAMP_NOT_FOUND_IN_NAMESPACE", "message": "none"}]}}),
        (400, {"detail": {"error": [{"code": "INVALID_HASH_FORMAT", "message": "none"}]}}),
        (404, {"status": "error", "error": "no stamp"}),
    ],
)
async def test_a_refusal_that_says_there_is_no_such_stamp_is_none(
    status: int, body: Any, client: AsyncMetadataStampingClient
) -> None:  # contract 5, rows 14, 15
    with answering(client, response(status, body)):
        assert await client.get_stamp(HASH) is None
