"""The metadata service answers as the contract says, in both dialects, and does the work it claims."""

import json
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from blake3 import blake3

from bridge_tasks.sandbox.backend import Limits
from bridge_tasks.sandbox.metadata_service import create_app
from bridge_tasks.sandbox.server import running

PREFIX = "/api/v1/metadata-stamping"
HELLO = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
ENVELOPE = {"status", "data", "error", "message", "metadata"}


@pytest.fixture(scope="module")
def service_url() -> Iterator[str]:
    with running(create_app("service")) as url:
        yield url


@pytest.fixture
def service(service_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service_url + PREFIX) as client:
        yield client


@pytest.fixture
def root(service_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service_url) as client:
        yield client


@pytest.fixture
def guide() -> Iterator[httpx.Client]:
    with running(create_app("guide")) as url, httpx.Client(base_url=url) as client:
        yield client


def data_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == ENVELOPE
    data: dict[str, Any] = body["data"]
    return data


def problem_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    detail = answer.json()["detail"]
    assert detail.keys() == ENVELOPE
    assert detail["metadata"]["status_code"] == 500
    (problem,) = detail["error"]
    return answer.status_code, problem["code"], problem["field"]


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 10_000])
def test_an_upload_is_hashed_as_it_is(service: httpx.Client, content: bytes) -> None:
    answer = service.post("/hash", files={"file": ("data", content)}, params={"namespace": "mine"})

    data = data_of(answer)
    assert data["file_hash"] == blake3(content).hexdigest()
    assert data["file_size_bytes"] == len(content)
    assert data["performance_grade"] in {"A", "B", "C"}
    assert answer.json()["metadata"] == {
        "namespace": "mine",
        "filename": "data",
        "operation": "generate_hash",
    }


def test_an_upload_without_a_file_is_refused_by_schema(service: httpx.Client) -> None:
    answer = service.post("/hash", files={"other": b"x"})

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "file"]


def test_what_is_too_large_is_refused_in_plain_text() -> None:
    app = create_app(limits=Limits(content=10, upload=20))
    with running(app) as url, httpx.Client(base_url=url + PREFIX) as client:
        long = "é" * 6
        answers = [
            client.post("/hash", files={"file": b"x" * 21}),
            client.post("/stamp", json={"content": long, "file_path": "a"}),
            client.post("/validate", json={"content": long}),
            client.post("/validate-protocol", json={"content": long}),
        ]
        batch = client.post("/batch", json={"items": [{"content": long, "file_path": "a"}]})
        fits = client.post("/stamp", json={"content": "é" * 5, "file_path": "a"})

    assert {answer.status_code for answer in answers} == {413}
    assert all("size exceeds" in answer.json()["detail"] for answer in answers)
    assert batch.status_code == 200
    assert "size exceeds" in batch.json()["data"]["results"][0]["error"]
    assert fits.status_code == 200


def test_a_large_upload_does_not_grow_the_memory_of_the_service(service: httpx.Client, tmp_path: Path) -> None:
    size = 64 << 20
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(size)
    service.post("/hash", files={"file": b"warm"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with sparse.open("rb") as file:
        data = data_of(service.post("/hash", files={"file": file}))

    assert data["file_size_bytes"] == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # kibibytes


def test_a_stamp_is_made_kept_and_found(service: httpx.Client) -> None:
    request = {
        "content": "made and kept",
        "file_path": "a.txt",
        "namespace": "mine",
        "metadata": {"author": "Ada"},
    }

    answer = service.post("/stamp", json=request)

    data = data_of(answer)
    assert data["stamped_content"] == f"{data['stamp']}\nmade and kept"
    assert data["stamp"].endswith(",author=Ada")
    assert (data["op_id"], data["namespace"], data["version"]) == (None, "omninode.services.metadata", 1)
    assert answer.json()["metadata"]["namespace"] == "mine"
    row = data_of(service.get(f"/stamp/{data['file_hash']}"))
    assert row["id"] == data["stamp_id"]
    assert row["namespace"] == "omninode.services.metadata"
    assert row["stamp_data"]["namespace"] == "mine"
    assert row["stamp_data"]["metadata"]["author"] == "Ada"


def test_a_rich_stamp_follows_the_content_and_validates(service: httpx.Client) -> None:
    request = {"content": "rich text", "file_path": "a.txt", "options": {"stamp_type": "rich"}}

    data = data_of(service.post("/stamp", json=request))

    assert data["stamped_content"] == f"rich text\n\n{data['stamp']}"
    assert data_of(service.post("/validate", json={"content": data["stamped_content"]}))["is_valid"]


def test_stamping_twice_gives_the_same_id_and_another_text(service: httpx.Client) -> None:
    first, second = (
        data_of(service.post("/stamp", json={"content": "twice", "file_path": path})) for path in ("a", "b")
    )

    assert first["stamp_id"] == second["stamp_id"]
    assert first["created_at"] == second["created_at"]
    assert first["stamp"] != second["stamp"]


def test_fields_of_the_other_dialect_are_ignored(service: httpx.Client) -> None:
    superset = {"content": "superset", "file_path": "a", "file_hash": "x", "file_size": 1, "stamp_data": {}}

    assert data_of(service.post("/stamp", json=superset))["file_hash"] != "x"


@pytest.mark.parametrize(
    "request_body",
    [
        {"content": "no path for a new hash"},
        {"content": "bad uid", "file_path": "a", "metadata": {"uid": "two words"}},
        {"content": "line break", "file_path": "a", "metadata": {"author": "a\nb"}},
    ],
)
def test_values_that_cannot_be_stamped_are_a_validation_error(
    service: httpx.Client, request_body: dict[str, Any]
) -> None:
    answer = service.post("/stamp", json=request_body)

    assert problem_of(answer) == (422, "VALIDATION_ERROR", None)
    assert answer.json()["detail"]["error"][0]["message"].startswith("Invalid input")


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b'{"content": 1}',
        b'{"content": "x", "options": {"stamp_type": "hash_only"}}',
        b"not json",
        b'{"content": NaN}',
    ],
)
def test_a_wrong_schema_is_a_list_of_problems(service: httpx.Client, raw: bytes) -> None:
    answer = service.post("/stamp", content=raw, headers={"content-type": "application/json"})

    assert answer.status_code == 422
    assert answer.json()["detail"][0].keys() >= {"type", "loc", "msg"}


def test_metadata_that_is_not_json_leaves_nothing_behind(service: httpx.Client) -> None:
    body = b'{"content": "nan", "file_path": "a", "metadata": {"x": NaN}}'
    answer = service.post("/stamp", content=body, headers={"content-type": "application/json"})

    assert problem_of(answer)[:2] == (422, "VALIDATION_ERROR")
    assert service.get(f"/stamp/{blake3(b'nan').hexdigest()}").status_code == 404


def test_half_a_character_is_a_validation_error(service: httpx.Client) -> None:
    body = b'{"content": "\\ud800", "file_path": "a"}'
    answer = service.post("/stamp", content=body, headers={"content-type": "application/json"})

    assert problem_of(answer)[:2] == (422, "VALIDATION_ERROR")


def test_lookups_are_refused_in_the_order_format_row_namespace(service: httpx.Client) -> None:
    data_of(service.post("/stamp", json={"content": "hello", "file_path": "a", "namespace": "mine"}))

    assert problem_of(service.get("/stamp/abc")) == (400, "INVALID_HASH_FORMAT", "file_hash")
    assert problem_of(service.get(f"/stamp/{HELLO.upper()}")) == (400, "INVALID_HASH_FORMAT", "file_hash")
    assert problem_of(service.get(f"/stamp/{'0' * 64}")) == (404, "STAMP_NOT_FOUND", "file_hash")
    assert problem_of(service.get(f"/stamp/{HELLO}", params={"namespace": "other"})) == (
        404,
        "STAMP_NOT_FOUND_IN_NAMESPACE",
        "namespace",
    )
    assert data_of(service.get(f"/stamp/{HELLO}", params={"namespace": "mine"}))["file_hash"] == HELLO


def test_an_unknown_route_is_the_routers_own_404(root: httpx.Client) -> None:
    answer = root.post("/stamp", json={"content": "hello"})

    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_text_without_stamps_is_not_valid_and_not_an_error(service: httpx.Client) -> None:
    answer = service.post("/validate", json={"content": " hello\n"})

    data = data_of(answer)
    assert (data["is_valid"], data["stamps_found"], data["current_hash"]) == (False, 0, HELLO)
    assert answer.json()["metadata"]["validation_summary"] == {"valid": False, "stamps_found": 0}


def test_an_expected_hash_is_compared_as_well(service: httpx.Client) -> None:
    content = data_of(service.post("/stamp", json={"content": "hello", "file_path": "a"}))["stamped_content"]

    def is_valid(expected: str) -> bool:
        request = {"content": content, "options": {"expected_hash": expected}}
        return bool(data_of(service.post("/validate", json=request))["is_valid"])

    assert is_valid(HELLO)
    assert not is_valid("0" * 64)


def test_a_rich_block_without_a_hash_is_a_validation_error(service: httpx.Client) -> None:
    content = "<!-- ONEX_METADATA_START -->\nuid: a\n<!-- ONEX_METADATA_END -->"

    assert problem_of(service.post("/validate", json={"content": content}))[:2] == (422, "VALIDATION_ERROR")


def test_a_batch_keeps_its_order_and_says_which_items_failed(service: httpx.Client) -> None:
    items = [
        {"id": "one", "content": "batch one", "file_path": "1"},
        {"id": "again", "content": "batch one", "file_path": "2"},
        {"id": "nowhere", "content": "batch two"},
    ]

    answer = service.post("/batch", json={"items": items})

    data = data_of(answer)
    assert answer.json()["status"] == "partial"
    assert [result["id"] for result in data["results"]] == ["one", "again", "nowhere"]
    assert [result["success"] for result in data["results"]] == [True, False, False]
    assert (data["total_items"], data["successful_items"], data["failed_items"]) == (3, 1, 2)
    everything_fails = service.post("/batch", json={"items": items}).json()
    assert (everything_fails["status"], everything_fails["error"]) == ("error", None)
    assert everything_fails["data"]["failed_items"] == 3


def test_an_empty_batch_and_an_id_that_is_no_text_are_refused(service: httpx.Client) -> None:
    assert problem_of(service.post("/batch", json={"items": []})) == (400, "EMPTY_BATCH_REQUEST", "items")
    answer = service.post("/batch", json={"items": [{"id": 1, "content": "x", "file_path": "x"}]})
    assert problem_of(answer)[:2] == (422, "VALIDATION_ERROR")


def test_the_protocol_check_accepts_the_services_own_stamps(service: httpx.Client) -> None:
    content = data_of(service.post("/stamp", json={"content": "hello", "file_path": "a"}))["stamped_content"]

    own = data_of(service.post("/validate-protocol", json={"content": content}))["validation_result"]
    bare = data_of(service.post("/validate-protocol", json={"content": "hello"}))["validation_result"]

    assert (own["is_valid"], own["compliance_level"]) == (True, "full")
    assert (bare["is_valid"], bare["compliance_level"], len(bare["issues"])) == (False, "none", 2)


def test_a_namespace_is_listed_page_by_page(service: httpx.Client) -> None:
    for number in range(3):
        request = {"content": f"page {number}", "file_path": "a", "namespace": "pages"}
        data_of(service.post("/stamp", json=request))

    first = data_of(service.get("/namespace/pages", params={"limit": 2}))
    second = data_of(service.get("/namespace/pages", params={"limit": 2, "offset": 2}))

    assert first["pagination"] == {"limit": 2, "offset": 0, "total": 3, "has_more": True}
    assert not second["pagination"]["has_more"]
    assert len({row["id"] for row in first["stamps"] + second["stamps"]}) == first["total_stamps"] == 3
    assert service.get("/namespace/pages", params={"limit": 0}).status_code == 422


def test_health_is_told_under_the_prefix_and_beside_it(service: httpx.Client, root: httpx.Client) -> None:
    assert root.get("/health").json() == {"status": "ok", "service": "metadata-stamping"}
    assert root.get("/").json()["status"] == "running"
    health = data_of(service.get("/health"))
    assert health["status"] in {"healthy", "degraded"}
    assert health["components"].keys() == {"stamping_engine", "database", "file_handler", "event_publisher"}
    assert data_of(service.get("/health/live"))["status"] == "alive"
    assert data_of(service.get("/health/ready"))["overall_ready"] is True


def test_metrics_are_json_under_the_prefix_and_prometheus_beside_it(
    service: httpx.Client, root: httpx.Client
) -> None:
    service.post("/hash", files={"file": b"x"})

    assert data_of(service.get("/metrics"))["hash_generation"]["total_operations"] >= 1
    assert root.get("/metrics").status_code == 307
    text = root.get("/metrics/")
    assert text.headers["content-type"].startswith("text/plain")
    assert "metadata_stamping_hashes_total" in text.text


@pytest.mark.parametrize("dialect", ["service", "guide"])
def test_stamps_survive_a_restart_when_they_are_kept_in_a_file(dialect: Any, tmp_path: Path) -> None:
    prefix = PREFIX if dialect == "service" else ""
    request = {"content": "hello", "file_hash": HELLO, "file_path": "a", "file_size": 5}
    ids = []
    for _ in range(2):
        with running(create_app(dialect, tmp_path / "stamps.db")) as url:
            ids.append(httpx.post(f"{url}{prefix}/stamp", json=request).json()["data"]["stamp_id"])

    assert ids[0] == ids[1]


def test_many_at_once_stamping_the_same_content_get_one_stamp(service: httpx.Client) -> None:
    # Large enough to be handed to threads.
    request = json.dumps({"content": "same " * 100_000, "file_path": "a"})
    headers = {"content-type": "application/json"}

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: service.post("/stamp", content=request, headers=headers), range(8)))

    assert len({data_of(answer)["stamp_id"] for answer in answers}) == 1


def test_the_guides_flow_of_hash_stamp_lookup_works(guide: httpx.Client) -> None:
    hashed = guide.post("/hash", files={"file": b"hello"}, params={"namespace": "default"}).json()["data"]
    assert hashed["hash"] == HELLO
    assert hashed["file_size_bytes"] == 5

    request = {"file_hash": hashed["hash"], "file_path": "/a", "file_size": 5, "stamp_data": {"key": "value"}}
    stamp = guide.post("/stamp", json=request).json()["data"]

    assert stamp["file_hash"] == HELLO
    assert stamp["namespace"] == "omninode.services.metadata"
    assert stamp["op_id"]
    found = guide.get(f"/stamp/{HELLO}").json()["data"]
    assert found["stamp_id"] == stamp["stamp_id"]
    assert found["stamp_data"] == {"key": "value"}


def test_content_is_stamped_in_the_guides_dialect_too(guide: httpx.Client) -> None:
    request = {"file_hash": "mine", "file_path": "/a", "file_size": 5, "content": "hello", "options": {}}
    stamp = guide.post("/stamp", json=request).json()["data"]
    assert stamp["file_hash"] == "mine"

    verdict = guide.post("/validate", json={"content": stamp["stamped_content"]}).json()["data"]

    assert verdict["validation_result"] is True
    assert (verdict["stamps_found"], verdict["valid_stamps"], verdict["invalid_stamps"]) == (1, 1, 0)


def test_the_guides_batch_counts_its_items(guide: httpx.Client) -> None:
    items = [
        {"file_hash": f"hash_{i}", "file_path": f"/path/{i}", "file_size": 100 * i, "stamp_data": {}}
        for i in range(10)
    ]

    first = guide.post("/batch", json={"items": items, "namespace": "mine"}).json()
    partly = guide.post("/batch", json={"items": [{}, {**items[0], "file_hash": "new"}]}).json()
    again = guide.post("/batch", json={"items": items}).json()

    assert (first["status"], first["data"]["total"], first["data"]["successful"]) == ("success", 10, 10)
    assert first["data"]["results"][3]["namespace"] == "mine"
    assert (partly["status"], partly["data"]["failed"]) == ("partial", 1)
    assert (again["status"], again["data"]["failed"]) == ("error", 10)


def test_the_guides_errors_are_text_at_top_level(guide: httpx.Client) -> None:
    for answer, status in (
        (guide.get("/stamp/unknown"), 200),
        (guide.post("/stamp", json={}), 422),
        (guide.post("/hash"), 422),
        (guide.get("/nowhere"), 404),
        (guide.post("/batch", json={"items": []}), 422),
    ):
        assert answer.status_code == status
        assert answer.json()["status"] == "error"
        assert isinstance(answer.json()["error"], str)


def test_the_guides_health_and_metrics_are_bare(guide: httpx.Client) -> None:
    assert guide.get("/health").json() == {"status": "healthy", "version": "0.1.0"}
    assert guide.get("/metrics").json().keys() >= {"hash_generation", "database"}
    guide.post("/stamp", json={"file_hash": "a", "file_path": "a", "file_size": 0, "namespace": "mine"})
    assert guide.get("/namespace/mine").json()["data"]["total_stamps"] == 1
    content = {"content": "nothing", "namespace": None}
    verdict = guide.post("/validate-protocol", json=content).json()["data"]["validation_result"]
    assert verdict["is_valid"] is False
