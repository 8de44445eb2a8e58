"""The union of both shapes of MetadataStampingService: pure functions over its payloads.

Each takes what one shape sent and fills in the keys of the other; a value that is there is never overwritten,
but for the namespace, which the service is known to echo wrongly (wire-contract.md 5, rows 3 to 22).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_jsonable_python

from bridge_tasks.errors import InvalidRequest

EMPTY_HASH = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
"""BLAKE3 of nothing: what the service stamps where an item of a batch has no content."""

_BATCH_FIELDS = ("file_hash", "file_path", "file_size", "stamp_data")


def _same(data: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Fill each of `keys` from the first of them that is there."""
    known = next((data[key] for key in keys if data.get(key) is not None), None)
    return data if known is None else {**dict.fromkeys(keys, known), **data}


def plain_json(value: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Turn models, UUIDs and dates inside `value` into plain JSON.

    Raises:
        InvalidRequest: it holds something else, or itself.
    """
    try:
        plain: dict[str, Any] = to_jsonable_python(dict(value))
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest(field, "must be a JSON object, without cycles") from None
    return plain


def hash_answer(data: dict[str, Any]) -> dict[str, Any]:
    """Row 4: `hash` and `file_hash`."""
    return _same(data, "hash", "file_hash")


def stamp_answer(data: dict[str, Any], metadata: Any, *, requested_hash: str) -> dict[str, Any]:
    """Rows 3 and 21: the caller's hash under its own key, the namespace that was really used."""
    answer = {**_same(data, "file_hash", "hash"), "requested_hash": requested_hash}
    if isinstance(metadata, dict) and metadata.get("namespace"):
        answer["namespace"] = metadata["namespace"]
    return answer


def row_answer(data: dict[str, Any]) -> dict[str, Any]:
    """Rows 13 and 21: `stamp_id`, and the namespace that the row's own data names."""
    answer = _same(data, "stamp_id", "id")
    inner = data.get("stamp_data")
    if isinstance(inner, dict) and inner.get("namespace"):
        answer = {**answer, "namespace": inner["namespace"]}
    return answer


def validation_answer(data: dict[str, Any]) -> dict[str, Any]:
    """Row 5: the verdict, the counts and the details under both names."""
    answer = _same(_same(data, "validation_result", "is_valid"), "details", "validation_details")
    details = answer.get("details")
    stamps: list[Any] = details if isinstance(details, list) else []
    valid = sum(1 for stamp in stamps if isinstance(stamp, dict) and stamp.get("is_valid"))
    counts = {
        "stamps_found": len(stamps),
        "valid_stamps": valid,
        "invalid_stamps": len(stamps) - valid,
        "details": stamps,
        "validation_details": stamps,
    }
    return {**counts, **answer}


def batch_item(item: Mapping[str, Any], index: int, namespace: str, needs_content: bool) -> dict[str, Any]:
    """Rows 9 and 12: one item in both shapes at once; its own namespace wins.

    Raises:
        InvalidRequest: a field is missing.
    """
    if not isinstance(item, Mapping):
        raise InvalidRequest(f"items.{index}", "must be an object")
    missing = next((field for field in _BATCH_FIELDS if field not in item), None)
    if missing is not None:
        raise InvalidRequest(f"items.{index}.{missing}", "is required")
    if needs_content and item.get("content") is None:
        raise InvalidRequest(f"items.{index}.content", "is required: this service stamps content, not hashes")
    plain = plain_json(item, f"items.{index}")
    plain = {"content_type": None, **plain, "namespace": plain.get("namespace") or namespace}
    plain["id"] = str(plain.get("id") or f"item_{index}")
    plain["metadata"] = plain["stamp_data"]
    return {key: value for key, value in plain.items() if key != "content" or value is not None}


def batch_answer(data: dict[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows 9 and 10: the counts under both names; an item stamped as empty text for want of content failed."""
    results = data.get("results")
    results = list(results) if isinstance(results, list) else []
    emptied = 0
    for index, (result, item) in enumerate(zip(results, items, strict=False)):
        if isinstance(result, dict) and _stamped_empty(result, item):
            results[index] = {**result, "success": False, "error": "the service stamped empty text: give content"}
            emptied += 1
    answer = {**data, "results": results}
    for short, long in (("total", "total_items"), ("successful", "successful_items"), ("failed", "failed_items")):
        answer = _same(answer, short, long)
    if emptied:
        for key, change in (("successful", -emptied), ("failed", emptied)):
            answer[key] = answer[f"{key}_items"] = (answer.get(key) or 0) + change
    return answer


def _stamped_empty(result: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    return (
        bool(result.get("success") and result.get("file_hash") == EMPTY_HASH and item.get("content") is None)
        and item.get("file_hash") != EMPTY_HASH
    )
