"""What goes into a request to MetadataStampingService besides its JSON: keys, segments of paths, sizes. Pure."""

import io
import json
import os
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import quote

from bridge_tasks import idempotency
from bridge_tasks.errors import InvalidRequest


def key_header(*names: str) -> dict[str, str] | None:
    """The header for one call of the effect that is bound, if one is."""
    effect = idempotency.current()
    return None if effect is None else idempotency.header(effect.part(*names))


def item_key(effect: idempotency.Effect, item: Mapping[str, Any]) -> str:
    """The key of an item, in whatever batch it is sent, or alone: not by its place in this one."""
    return effect.part("stamp", *(str(item[field]) for field in ("file_path", "file_hash", "namespace")))


def gist(item: Mapping[str, Any]) -> str:
    """An item in short: another selection of items, or other data with one, is another request and key.

    The content itself is left out, as its hash is in.
    """
    return json.dumps({field: item[field] for field in item if field != "content"}, default=str)


def segment(field: str, value: str) -> str:
    """Quote what becomes one segment of a path; dots alone would lead to another route."""
    if not isinstance(value, str) or not value.strip("."):
        raise InvalidRequest(field, "must be text, and more than dots")
    return quote(value.lower() if field == "file_hash" else value, safe="")


def size_of(data: bytes | IO[bytes]) -> int:
    if isinstance(data, bytes):
        return len(data)
    try:
        if not isinstance(data, io.TextIOBase):
            return data.seek(0, os.SEEK_END)  # httpx rewinds before it sends
    except (AttributeError, OSError, ValueError):  # no file at all; a pipe; a closed file
        pass
    raise InvalidRequest("file_data", "must be bytes or an open binary file that can seek")
