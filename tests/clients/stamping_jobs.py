"""Texts that nobody has stamped before, and the calls that stamp them."""

from typing import Any
from uuid import uuid4

from blake3 import blake3

from bridge_tasks.clients import AsyncMetadataStampingClient


def new_text() -> str:
    return f"text {uuid4()}"


def hash_of(text: str) -> str:
    return str(blake3(text.encode()).hexdigest())


async def stamp(client: AsyncMetadataStampingClient, text: str, **given: Any) -> dict[str, Any]:
    arguments = {"file_path": "/path/to/file", "file_size": len(text), "stamp_data": {}, "content": text, **given}
    return await client.create_stamp(hash_of(text), **arguments)


def item(text: str, **given: Any) -> dict[str, Any]:
    return {
        "file_hash": hash_of(text),
        "file_path": "/a",
        "file_size": 1,
        "stamp_data": {},
        "content": text,
        **given,
    }
