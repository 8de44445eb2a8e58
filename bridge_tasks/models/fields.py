"""The kinds of value that cross our border, each with the rule that makes it safe to pass on.

A rule is written once, here; request models compose them. Nothing here knows a task or a service.
"""

import math
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError, to_jsonable_python

MAX_PATH_CHARS = 4096
"""Linux PATH_MAX."""
MAX_JSON_BYTES = 256 * 1024
"""What may ride along in a message as JSON: a stamp's metadata is small, a document belongs in `content`."""
MAX_JSON_DEPTH = 32


class Frozen(BaseModel):
    """A value: immutable, and nothing but its declared fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def refuse(kind: str, reason: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{reason}", {"reason": reason})


def _printable(value: str) -> str:
    """Refuse what would break a header, a log line or a terminal: control characters and lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refuse("not_utf8", "must be valid UTF-8") from None
    if any(ord(char) < ord(" ") or "\x7f" <= char <= "\x9f" or char in "\u2028\u2029" for char in value):
        raise refuse("control_characters", "must not hold control characters")
    return value


def _no_traversal(value: str) -> str:
    if ".." in value.replace("\\", "/").split("/"):
        raise refuse("path_traversal", "must not climb with '..'")
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _plain_json(value: Any) -> dict[str, Any]:
    """Turn models, UUIDs and dates inside `value` into plain JSON; refuse what JSON cannot carry."""
    try:
        plain = to_jsonable_python(value)
    except (ValueError, RecursionError) as error:
        raise refuse("not_json", "must be plain JSON, without cycles") from error
    if not isinstance(plain, dict):
        raise refuse("not_object", "must be a JSON object")
    _check_json(plain)
    try:
        size = len(orjson.dumps(plain))
    except TypeError as error:  # integers beyond 64 bits, lone surrogates
        raise refuse("not_json", "holds a number or text that JSON cannot carry") from error
    if size > MAX_JSON_BYTES:
        raise refuse("too_large", f"is {size} bytes as JSON; at most {MAX_JSON_BYTES} are carried")
    return plain


def _check_json(root: dict[str, Any]) -> None:
    level: list[Any] = [root]
    for _ in range(MAX_JSON_DEPTH):
        if any(isinstance(node, float) and not math.isfinite(node) for node in level):
            raise refuse("not_finite", "must not hold NaN or infinity")
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise refuse("too_deep", f"is nested deeper than {MAX_JSON_DEPTH} levels")


Text = Annotated[str, AfterValidator(_printable)]

Namespace = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$"), Field(examples=["omninode.bridge"])
]
FileHash = Annotated[str, BeforeValidator(_lower), StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""BLAKE3, 256 bits, lowercase hex (upper case is lowered: the service refuses it)."""

FilePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_PATH_CHARS),
    AfterValidator(_printable),
    AfterValidator(_no_traversal),
]
"""A path as a label in a stamp; files to be read are `FileContent`."""

ContentType = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(; ?[ -~]{1,127})?$"),
]
Hashing = Literal["service", "local"]
"""Who hashes a file: MetadataStampingService, or the worker, with the same BLAKE3."""
Context = Annotated[Text, StringConstraints(min_length=1, max_length=2000)]
"""What intelligence is asked about."""

JsonObject = Annotated[dict[str, Any], BeforeValidator(_plain_json)]
FileSize = Annotated[int, Field(ge=0, le=2**53, strict=True)]
