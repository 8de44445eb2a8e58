"""Opens what jobs refer to, and keeps blobs. Follows no redirect; no message holds a byte of content."""

import secrets
import tempfile
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from typing import Any, Protocol

import httpx
from redis.exceptions import RedisError

from bridge_tasks.content.allowed import vet
from bridge_tasks.content.files import open_file
from bridge_tasks.content.opened import Opened
from bridge_tasks.errors import ContentUnavailable, InvalidRequest, ServiceUnavailableError
from bridge_tasks.models.content import BlobContent, ContentRef, FileContent, InlineContent, UrlContent
from bridge_tasks.resilience.policy.retry import RETRYABLE_STATUSES, RetryConfig
from bridge_tasks.resilience.transport import stack
from bridge_tasks.resilience.transport.bottom import SINK, Bottom, Sink
from bridge_tasks.resilience.transport.call import EXTENSION, SERVICE_FAULTS, Call
from bridge_tasks.resilience.transport.deadline import DeadlineTransport
from bridge_tasks.resilience.transport.observing import ObservingTransport
from bridge_tasks.resilience.transport.retrying import RetryingTransport
from bridge_tasks.settings import ContentSettings

BLOB_PREFIX = "bridge:blob:"
_MEMORY_BYTES = 1024 * 1024
"""A download beyond this is kept in a temporary file, not in memory."""
_FETCH_SECONDS = 60.0
_FETCH_READ_SECONDS = 10.0


class RedisCommands(Protocol):
    """The one Redis method that is needed here; on the blocking bottom it never suspends."""

    async def execute_command(self, *arguments: Any) -> Any:
        """Run one command."""
        ...


class ContentStore:
    """Opens references, and keeps blobs.

    Args:
        settings: what may be read.
        redis: where blobs are.
        bottom: how I/O is done.
    """

    def __init__(self, settings: ContentSettings, redis: RedisCommands, bottom: Bottom) -> None:
        self.settings = settings
        self._redis = redis
        self._web = stack(
            bottom.connect(),
            partial(DeadlineTransport, seconds=_FETCH_SECONDS, clock=bottom.clock),
            partial(RetryingTransport, config=RetryConfig(), bottom=bottom),
            partial(ObservingTransport, clock=bottom.clock),
        )

    async def open(self, content: ContentRef) -> Opened:
        """Open content for reading.

        Raises:
            InvalidRequest: it may not be read.
            ContentUnavailable: it is gone, unreadable, or not what it was.
            ServiceUnavailableError: its host, or Redis, is out of reach for now.
        """
        vet(content, self.settings)
        match content:
            case InlineContent():
                return Opened(BytesIO(content.raw), len(content.raw))
            case FileContent():
                return open_file(content, self.settings)
            case BlobContent():
                return await self._open_blob(content)
            case UrlContent():
                return await self._fetch(content)

    async def put(self, raw: bytes) -> BlobContent:
        """Keep bytes in Redis for `blob_ttl` seconds.

        Raises:
            InvalidRequest: they exceed `max_blob_bytes`.
            ServiceUnavailableError: Redis is out of reach for now.
        """
        if len(raw) > self.settings.max_blob_bytes:
            raise InvalidRequest("content", f"is {len(raw)} bytes; a blob ends at {self.settings.max_blob_bytes}")
        blob = BlobContent(key=secrets.token_hex(16), size=len(raw))
        await self._command("SET", BLOB_PREFIX + blob.key, raw, "PX", int(self.settings.blob_ttl * 1000))
        return blob

    async def close(self) -> None:
        """Close the connections to content hosts."""
        await self._web.aclose()

    async def _open_blob(self, blob: BlobContent) -> Opened:
        raw = await self._command("GET", BLOB_PREFIX + blob.key)
        if not isinstance(raw, bytes):
            raise ContentUnavailable("the blob has expired")
        if len(raw) != blob.size:
            raise ContentUnavailable("the blob is not what was put there")
        return Opened(BytesIO(raw), len(raw))

    async def _command(self, *arguments: Any) -> Any:
        try:
            return await self._redis.execute_command(*arguments)
        except RedisError as error:
            raise ServiceUnavailableError("the Redis that keeps blobs is out of reach") from error

    async def _fetch(self, content: UrlContent) -> Opened:
        file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115 - closed by Opened, or below
        try:
            response = await self._get(content.url, {SINK: Sink(file, self.settings.max_bytes)})
            _check_status(response)
        except BaseException:
            file.close()
            raise
        size = file.tell()
        file.seek(0)
        return Opened(file, size)

    async def _get(self, url: str, extensions: Mapping[str, Any]) -> httpx.Response:
        request = httpx.Request(
            "GET",
            url,
            headers={"Accept-Encoding": "identity", "User-Agent": "omninode-bridge/content"},
            extensions={
                EXTENSION: Call("content", "fetch"),
                "timeout": {"read": _FETCH_READ_SECONDS},
                **extensions,
            },
        )
        try:
            return await self._web.handle_async_request(request)
        except SERVICE_FAULTS as error:
            raise ServiceUnavailableError("the content's host is out of reach") from error
        except httpx.HTTPError as error:
            raise ContentUnavailable(f"the content cannot be fetched: {error}") from error


def _check_status(response: httpx.Response) -> None:
    if response.is_redirect:
        raise ContentUnavailable("the content's host answers with a redirect, which is not followed")
    if response.status_code in RETRYABLE_STATUSES:
        raise ServiceUnavailableError("the content's host is out of order", response.status_code)
    if not response.is_success:
        raise ContentUnavailable(f"the content's host answers HTTP {response.status_code}")
