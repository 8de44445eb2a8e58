"""What tasks take: journeys through JSON, results of the step before, and refusals without values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge_tasks.errors import InvalidRequest
from bridge_tasks.models import requests
from bridge_tasks.models.content import BlobContent, FileContent, InlineContent, UrlContent, describe
from bridge_tasks.models.requests import (
    BatchCreateStamps,
    CreateStamp,
    GenerateHash,
    GetIntelligence,
    GetStamp,
    StampFile,
    TaskRequest,
    refusal,
)

HASH = "ab" * 32
HASHED = {"hash": HASH, "file_size_bytes": 5, "execution_time_ms": 0.5, "performance_grade": "A"}
ENRICHED = {
    "intelligence": {"analysis_type": "auth"},
    "patterns": ["p"],
    "relationships": [],
    "metadata": {},
    "confidence": {"overall": 0.5},
    "degraded": True,
    "context": "login",
    "hashed": HASHED,
}
CONTENTS = [
    InlineContent.of(b"hello"),
    FileContent(path="/docs/a.md", size=5),
    BlobContent(key="0" * 32, size=5),
    UrlContent(url="https://docs.example/a.md?version=2"),
]


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: content.kind)
def test_every_form_of_content_survives_its_journey_in_a_message(content: Any) -> None:
    request = GenerateHash(content=content)
    assert GenerateHash.model_validate(request.model_dump(mode="json", exclude_none=True)) == request
    assert GenerateHash.model_validate_json(request.model_dump_json()) == request


@given(raw=st.binary(max_size=2000))
def test_inline_bytes_are_the_bytes_and_are_never_shown(raw: bytes) -> None:
    content = InlineContent.of(raw)
    assert content.raw == raw
    assert repr(content) == "InlineContent(kind='inline')"
    assert describe(content) == f"inline ({len(raw)} bytes)"


def test_inline_content_ends_at_64_kib() -> None:
    assert len(InlineContent.of(b"x" * 65536).raw) == 65536
    with pytest.raises(ValidationError):
        InlineContent.of(b"x" * 65537)


def test_intelligence_takes_the_hash_along_and_the_stamp_takes_both() -> None:
    assert GetIntelligence.following(HASHED, {"context": "login"}) == {"context": "login", "hashed": HASHED}

    stamp = CreateStamp.model_validate(CreateStamp.following(ENRICHED, {"file_path": "/a.md"}))
    assert (stamp.file_hash, stamp.file_size, stamp.degraded) == (HASH, 5, True)
    assert stamp.intelligence == {key: ENRICHED[key] for key in ENRICHED if key != "hashed"}


def test_a_stamp_may_follow_the_hash_alone_and_what_is_given_by_name_wins() -> None:
    stamp = CreateStamp.following(HASHED, {"file_path": "/a.md", "file_size": 7})
    assert stamp == {"file_hash": HASH, "file_size": 7, "file_path": "/a.md"}
    assert GetStamp.following(HASHED, {}) == {"file_hash": HASH}


@pytest.mark.parametrize("previous", [None, 7, "hash", [], {}, {"hashed": None}, {"intelligence": {}}])
def test_a_result_of_another_kind_is_refused(previous: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        CreateStamp.following(previous, {})
    assert refused.value.field == "previous"


def test_every_request_is_frozen_and_takes_no_unknown_field() -> None:
    models = [
        model for model in vars(requests).values() if isinstance(model, type) and issubclass(model, TaskRequest)
    ]
    assert len(models) == 14
    assert all(model.model_config["frozen"] and model.model_config["extra"] == "forbid" for model in models)


def test_a_batch_names_the_content_of_each_item_by_its_place() -> None:
    item = {"file_hash": HASH, "file_path": "/a", "file_size": 1}
    request = BatchCreateStamps.model_validate({"items": [item, {**item, "content": CONTENTS[1]}]})
    assert list(request.contents()) == [("items.1.", CONTENTS[1])]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"kind": "url", "url": "ftp://a"}, "content.url"),
        ({"kind": "file", "path": "a"}, "content.path"),
        ({"kind": "inline", "data": "?"}, "content.data"),
        ({"kind": "blob", "key": "?", "size": 1}, "content.key"),
        ({"kind": "blob", "key": "0" * 32, "size": 1, "file": 1}, "content.file"),
    ],
)
def test_a_refusal_names_the_field_as_the_caller_wrote_it(content: Any, field: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        StampFile.model_validate({"content": content, "file_path": "/a", "context": "c"})
    assert refusal(wrong.value).field == field


@given(value=st.text(min_size=7) | st.integers() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()))
def test_a_refusal_is_short_and_printable_whatever_was_refused(value: Any) -> None:
    with pytest.raises(ValidationError) as wrong:
        StampFile.model_validate({"content": value, "file_path": value, "context": value, "stamp_data": "x"})
    refused = refusal(wrong.value)
    assert refused.field == "content" or refused.field.startswith("content.")
    assert refused.reason.isprintable()
    assert len(refused.reason) <= 300
