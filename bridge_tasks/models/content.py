"""Where the bytes of a job are. A message carries one of these, never megabytes of content.

    inline   the bytes themselves, base64, at most 64 KiB
    file     a regular file under an allowed root of the worker
    blob     a Redis key that expires
    url      an http(s) address on an allowed host

Only the shape is checked here; `bridge_tasks.content` decides what may be read.
"""

import base64
import binascii
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from bridge_tasks.models.fields import MAX_PATH_CHARS, FileSize, Frozen, Text, refuse

MAX_INLINE_BYTES = 64 * 1024


def _decodable(value: str) -> str:
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise refuse("not_base64", "must be base64") from None
    if len(raw) > MAX_INLINE_BYTES:
        raise refuse("too_large", f"is {len(raw)} bytes; inline content ends at {MAX_INLINE_BYTES}")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise refuse("not_absolute", "must be absolute: a worker has another working directory")
    return value


def web_address(value: str) -> str:
    """Let an http(s) URL with a host and without credentials pass, as a pydantic validator."""
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise refuse("not_a_url", "must be a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise refuse("not_http", "must be an http or https URL with a host")
    if parts.username is not None or parts.password is not None:
        raise refuse("credentials", "must not hold credentials")
    if any(char.isspace() or char == "\\" for char in value):
        raise refuse("not_a_url", "must not hold spaces or backslashes")
    return value


class InlineContent(Frozen):
    """The bytes themselves."""

    kind: Literal["inline"] = "inline"
    data: Annotated[str, AfterValidator(_decodable)] = Field(repr=False)

    @classmethod
    def of(cls, raw: bytes) -> "InlineContent":
        """Make one of `raw` (at most 64 KiB, else pydantic's ValidationError)."""
        return cls(data=base64.b64encode(raw).decode())

    @property
    def raw(self) -> bytes:
        """The bytes."""
        return base64.b64decode(self.data)


class FileContent(Frozen):
    """A regular file under one of the worker's allowed roots.

    `size` (bytes) and `modified` (nanoseconds since the epoch) are what they were when the job was made; a worker
    that
    finds others says so, instead of stamping something that nobody asked for.
    """

    kind: Literal["file"] = "file"
    path: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_PATH_CHARS), AfterValidator(_absolute)]
    size: FileSize | None = None
    modified: Annotated[int, Field(ge=0, strict=True)] | None = None


class BlobContent(Frozen):
    """Bytes that the producer put into Redis; gone when their time is over."""

    kind: Literal["blob"] = "blob"
    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    size: FileSize


class UrlContent(Frozen):
    """An http(s) address on an allowed host; redirects are not followed."""

    kind: Literal["url"] = "url"
    url: Annotated[Text, StringConstraints(max_length=2048), AfterValidator(web_address)]


ContentRef = Annotated[
    InlineContent | FileContent | BlobContent | UrlContent,
    Field(discriminator="kind", examples=[{"kind": "file"}]),
]


def describe(content: InlineContent | FileContent | BlobContent | UrlContent) -> str:
    """Name the content for people (logs, Flower), without a byte of it and without a URL's query."""
    match content:
        case InlineContent():
            return f"inline ({len(content.raw)} bytes)"
        case FileContent():
            return content.path
        case BlobContent():
            return f"blob {content.key[:8]} ({content.size} bytes)"
        case UrlContent():
            parts = urlsplit(content.url)
            return f"{parts.scheme}://{parts.hostname}{parts.path}"
