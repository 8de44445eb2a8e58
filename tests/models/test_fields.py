"""The rules for single values: what passes is safe to put into a header, a log line, a URL and a message."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bridge_tasks.models.fields import (
    MAX_JSON_BYTES,
    MAX_JSON_DEPTH,
    ContentType,
    FileHash,
    FilePath,
    FileSize,
    JsonObject,
    Namespace,
    Text,
)


def accepts(rule: Any, value: object) -> bool:
    try:
        TypeAdapter(rule).validate_python(value)
    except ValidationError:
        return False
    return True


@given(value=st.text())
def test_text_that_passes_is_one_line_of_utf_8(value: str) -> None:
    if accepts(Text, value):
        assert len(f"{value}.".splitlines()) == 1
        value.encode()
        assert not any(char in value for char in "\0\x1b\x7f\x85")


@given(value=st.text(max_size=300))
def test_a_namespace_that_passes_needs_no_quoting_anywhere(value: str) -> None:
    if accepts(Namespace, value):
        assert value.isascii()
        assert all(char.isalnum() or char in "._-" for char in value)
        assert not value.startswith((".", "-"))


@given(value=st.text(st.sampled_from("/.\\ab"), max_size=12))
def test_a_label_that_passes_climbs_nowhere_on_any_system(value: str) -> None:
    if accepts(FilePath, value):
        assert ".." not in value.replace("\\", "/").split("/")


@pytest.mark.parametrize("good", ["a..b", "..a/b", "/docs/a.md", "C:\\docs\\a.md", "grüße.md"])
def test_dots_inside_names_and_other_languages_are_fine(good: str) -> None:
    assert accepts(FilePath, good)


def test_a_hash_is_lowered() -> None:
    assert TypeAdapter(FileHash).validate_python("AB" * 32) == "ab" * 32


@pytest.mark.parametrize("good", ["text/plain", "application/vnd.api+json", "text/html; charset=utf-8"])
def test_content_types_pass(good: str) -> None:
    assert accepts(ContentType, good)


@pytest.mark.parametrize(
    "bad", ["text", "text/", "/plain", "text/plain;\r\nX-Evil: 1", "text/plain; a\n", "a b/c"]
)
def test_what_is_no_content_type_does_not(bad: str) -> None:
    assert not accepts(ContentType, bad)


@pytest.mark.parametrize(
    ("size", "good"), [(0, True), (2**53, True), (2**53 + 1, False), (-1, False), (True, False)]
)
def test_a_size_is_an_integer_that_every_json_reader_keeps_exactly(size: object, good: bool) -> None:
    assert accepts(FileSize, size) is good


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=20,
)


@given(value=st.dictionaries(st.text(max_size=5), plain, max_size=4))
def test_json_that_passes_is_the_same_after_its_journey(value: dict[str, Any]) -> None:
    if accepts(JsonObject, value):
        passed = TypeAdapter(JsonObject).validate_python(value)
        assert json.loads(json.dumps(passed, allow_nan=False)) == passed == value


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"leaf": 1}
    for _ in range(levels):
        value = {"deeper": value}
    return value


def test_json_may_be_as_deep_as_its_limit_and_no_deeper() -> None:
    assert accepts(JsonObject, nested(MAX_JSON_DEPTH - 2))
    assert not accepts(JsonObject, nested(MAX_JSON_DEPTH))
    assert not accepts(JsonObject, nested(100_000))


def test_json_may_be_as_large_as_its_limit_and_no_larger() -> None:
    frame = len('{"a":""}')
    assert accepts(JsonObject, {"a": "x" * (MAX_JSON_BYTES - frame)})
    assert not accepts(JsonObject, {"a": "x" * (MAX_JSON_BYTES - frame + 1)})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_number_that_json_lacks_passes_at_any_depth(number: float) -> None:
    assert not accepts(JsonObject, {"a": [1, {"b": number}]})
