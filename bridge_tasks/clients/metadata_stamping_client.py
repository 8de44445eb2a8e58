"""The client of MetadataStampingService, whichever of its two shapes answers (wire-contract.md 5).

The service itself has its routes under a prefix and needs content; the guide's shape has neither. Requests are
a superset that both take, answers the union of both shapes' keys. This client guesses nothing: where the service
cannot do what was asked, its refusal is the caller's error.
"""

from collections.abc import Mapping, Sequence
from typing import IO, Any
from uuid import UUID

import httpx

from bridge_tasks import idempotency
from bridge_tasks.clients.base_client import AsgiApp, BaseServiceClient, data_of
from bridge_tasks.clients.envelope import SUCCESS_OR_PARTIAL, complaint, is_envelope, is_router_404
from bridge_tasks.clients.stamping_answers import (
    batch_answer,
    batch_item,
    hash_answer,
    plain_json,
    row_answer,
    stamp_answer,
    validation_answer,
)
from bridge_tasks.clients.stamping_requests import gist, item_key, key_header, segment, size_of
from bridge_tasks.errors import ClientError, ServiceUnavailableError
from bridge_tasks.models.requests import DEFAULT_NAMESPACE
from bridge_tasks.models.stamp_text import has_stamp
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig

API_PREFIX = "/api/v1/metadata-stamping"

_ABSENT_STAMP = frozenset({httpx.codes.BAD_REQUEST.value, httpx.codes.NOT_FOUND.value})
_NO_STAMP_CODES = frozenset({"STAMP_NOT_FOUND", "STAMP_NOT_FOUND_IN_NAMESPACE", "INVALID_HASH_FORMAT"})
_NO_LOOK_UP = "Stamp retrieval failed"
_CRASH = frozenset({httpx.codes.INTERNAL_SERVER_ERROR.value})


class AsyncMetadataStampingClient(BaseServiceClient):
    """Hash, stamp, look up and validate through MetadataStampingService.

    Every method takes `correlation_id` (a UUID or text), by default the one bound to the context, and raises
    `ClientError` for a refusal, `ServiceUnavailableError` for an outage, `CircuitBreakerError` while the circuit
    is open. Further keywords of the constructor: see `BaseServiceClient`.
    """

    HEALTHY = (*BaseServiceClient.HEALTHY, "degraded")
    """A degraded engine (a probe hash took 5 ms) still hashes and stamps."""

    def __init__(
        self,
        base_url: str | None = "http://192.168.86.200:8057",
        timeout: float = 30.0,
        max_retries: int = 3,
        circuit_breaker_config: CircuitBreakerConfig | None = None,
        app: AsgiApp | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            base_url, "MetadataStampingService", timeout, max_retries, circuit_breaker_config, app, **options
        )
        self._prefix: str | None = ""

    async def initialize(self) -> None:
        """Open the connection pool; the first call then finds out whether the routes have the prefix."""
        if self._http_client is None and not self.base_url.endswith(API_PREFIX):
            self._prefix = None
        await super().initialize()

    async def generate_hash(
        self,
        file_data: bytes | IO[bytes],
        namespace: str = "default",
        correlation_id: UUID | str | None = None,
    ) -> dict[str, Any]:
        """Hash bytes, or an open binary file that can seek (it is streamed): BLAKE3, 64 lowercase hex.

        Returns:
            `hash` and `file_hash` (the same), `file_size_bytes`, `execution_time_ms`, `performance_grade`.
        """
        if isinstance(file_data, bytearray | memoryview):
            file_data = bytes(file_data)
        size = size_of(file_data)
        body = await self._ask(
            "generate_hash",
            "POST",
            "/hash",
            failure="Hash generation failed",
            correlation_id=correlation_id,
            params={"namespace": namespace},
            files={"file": ("data", file_data, "application/octet-stream")},
            body_bytes=size,
        )
        return hash_answer(data_of(body))

    async def create_stamp(
        self,
        file_hash: str,
        file_path: str,
        file_size: int,
        stamp_data: Mapping[str, Any],
        content_type: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        correlation_id: UUID | str | None = None,
        *,
        content: str | None = None,
        idempotent: bool = True,
    ) -> dict[str, Any]:
        """Stamp a file.

        Where an effect is bound (`bridge_tasks.idempotency`), its key goes along; a service that knows such keys
        then stamps once, however often it is asked.

        Args:
            file_hash: what `generate_hash` said.
            file_path: a label; the service requires one.
            file_size: bytes.
            stamp_data: JSON to keep with the stamp; models and UUIDs inside become plain JSON.
            content_type: MIME type.
            namespace: where the stamp belongs.
            correlation_id: see the class.
            content: the text to stamp. The real service needs it and answers 422 without; its `file_hash` is
                then of the text without stamps and outer white space (`requested_hash` is yours).
            idempotent: whether it is sent again when nobody knows if it arrived. The stamp stays the same, its
                text does not: it has a new uid and time.

        Returns:
            `stamp_id`, `file_hash`, `requested_hash`, `namespace`, and what else the service says
            (`stamp`, `stamped_content`, `created_at`, `version`, ...).
        """
        plain = plain_json(stamp_data, "stamp_data")
        request = {
            "file_hash": file_hash,
            "file_path": file_path,
            "file_size": file_size,
            "content_type": content_type,
            "stamp_data": plain,
            "namespace": namespace,
        }
        if content is not None:
            kind = {"content_type": content_type} if content_type else {}
            request |= {"content": content, "metadata": {**plain, **kind}, "options": {}}
        body = await self._ask(
            "create_stamp",
            "POST",
            "/stamp",
            failure="Stamp creation failed",
            correlation_id=correlation_id,
            headers=key_header("stamp", file_path, file_hash, namespace),
            json=request,
            body_bytes=len(content or ""),
            idempotent=idempotent,
        )
        return stamp_answer(data_of(body), body.get("metadata"), requested_hash=file_hash)

    async def get_stamp(
        self, file_hash: str, namespace: str | None = None, correlation_id: UUID | str | None = None
    ) -> dict[str, Any] | None:
        """Return the stamp of a hash with its `stamp_id`, or None where there is none (or no such hash)."""
        endpoint = f"/stamp/{segment('file_hash', file_hash)}"
        response = await self._request(
            "get_stamp",
            "GET",
            endpoint,
            correlation_id=correlation_id,
            params={"namespace": namespace} if namespace else None,
            tolerated=_ABSENT_STAMP,
        )
        body = self._json(response, _NO_LOOK_UP)
        if body.get("status") == "success":
            return row_answer(data_of(body))
        status = response.status_code
        if is_router_404(body):
            raise self._failed(
                f"{_NO_LOOK_UP}: {self.service_name} has no such route: check its URL", status=status
            )
        said = complaint(body)
        absent = said.code in _NO_STAMP_CODES or (said.code is None and body.get("status") == "error")
        if status in _ABSENT_STAMP and not absent:
            raise self._failed(f"{_NO_LOOK_UP}: HTTP {status} {said}", status=status, code=said.code)
        return None

    async def validate_stamp(
        self,
        content: str,
        namespace: str | None = None,
        correlation_id: UUID | str | None = None,
        *,
        expected_hash: str | None = None,
    ) -> dict[str, Any]:
        """Check the stamps inside a text.

        Returns:
            `validation_result` and `is_valid` (the same), `stamps_found`, `valid_stamps`, `invalid_stamps`,
            `details` and `validation_details` (the same), `current_hash` where the service gives it.
            A text without stamps is not valid and has none, also with the service that crashes on it.
        """
        bare = not has_stamp(content)
        request: dict[str, Any] = {"content": content, "namespace": namespace}
        if expected_hash is not None:
            request["options"] = {"expected_hash": expected_hash}
        try:
            body = await self._ask(
                "validate_stamp",
                "POST",
                "/validate",
                failure="Stamp validation failed",
                accept=SUCCESS_OR_PARTIAL,
                read=True,
                correlation_id=correlation_id,
                json=request,
                body_bytes=len(content),
                expected=_CRASH if bare else frozenset(),
            )
        except ClientError as error:
            if bare and error.status in _CRASH:
                return validation_answer({"is_valid": False, "stamps_found": 0})
            raise
        return validation_answer(data_of(body))

    async def validate_protocol(
        self,
        content: str,
        target_protocol: str = "O.N.E.v0.1",
        validation_level: str = "strict",
        namespace: str = "default",
        correlation_id: UUID | str | None = None,
    ) -> dict[str, Any]:
        """Check a text against a protocol.

        Returns:
            `validation_result` {is_valid, compliance_level, issues, recommendations, ...}. A text that does
            not comply is an answer, not an error.
        """
        body = await self._ask(
            "validate_protocol",
            "POST",
            "/validate-protocol",
            failure="Protocol validation failed",
            accept=SUCCESS_OR_PARTIAL,
            read=True,
            correlation_id=correlation_id,
            json={
                "content": content,
                "target_protocol": target_protocol,
                "validation_level": validation_level,
                "namespace": namespace,
            },
            body_bytes=len(content),
        )
        return data_of(body)

    async def batch_create_stamps(
        self,
        items: Sequence[Mapping[str, Any]],
        namespace: str = DEFAULT_NAMESPACE,
        correlation_id: UUID | str | None = None,
    ) -> dict[str, Any]:
        """Stamp several files with one call; sent again only where it surely was not processed.

        Args:
            items: each with file_hash, file_path, file_size, stamp_data; optional id, content_type, content and
                namespace (which wins over the batch's), and idempotency_key: where an effect is bound, items
                without one get theirs from it.
            namespace: of items that have none.
            correlation_id: see the class.

        Returns:
            `total`, `successful`, `failed`, `results` in request order (and the service's own keys). An item
            without content that the service stamped as empty text counts as failed.

        Raises:
            InvalidRequest: an item lacks a field, or lacks content that this service is known to need.
            ClientError: every item failed; `data` holds the results.
        """
        needs_content = await self.needs_content(correlation_id)
        prepared = [batch_item(item, index, namespace, needs_content) for index, item in enumerate(items)]
        effect = idempotency.current()
        if effect is not None:
            prepared = [{"idempotency_key": item_key(effect, item), **item} for item in prepared]
        body = await self._ask(
            "batch_create_stamps",
            "POST",
            "/batch",
            failure="Batch stamping failed",
            accept=SUCCESS_OR_PARTIAL,
            correlation_id=correlation_id,
            headers=key_header("batch_create_stamps", *map(gist, prepared)) if effect else None,
            json={"items": prepared, "namespace": namespace},
            body_bytes=sum(len(item.get("content", "")) for item in prepared),
            idempotent=False,
        )
        return batch_answer(data_of(body), prepared)

    async def query_namespace(
        self,
        namespace: str,
        limit: int = 50,
        offset: int = 0,
        correlation_id: UUID | str | None = None,
    ) -> dict[str, Any]:
        """List the stamps of a namespace: `total_stamps`, `stamps`, `pagination`. `limit` is 1 to 1000."""
        body = await self._ask(
            "query_namespace",
            "GET",
            f"/namespace/{segment('namespace', namespace)}",
            failure="Namespace query failed",
            correlation_id=correlation_id,
            params={"limit": limit, "offset": offset},
        )
        return data_of(body)

    async def get_service_metrics(self, correlation_id: UUID | str | None = None) -> dict[str, Any]:
        """Return the service's own metrics: `hash_generation`, `database` and what else it has."""
        response = await self._request("get_service_metrics", "GET", "/metrics", correlation_id=correlation_id)
        body = self._json(response, "Metrics retrieval failed")
        return data_of(body) if is_envelope(body) else body

    async def needs_content(self, correlation_id: UUID | str | None = None) -> bool:
        """Say whether this service stamps content: the real one does, the guide's shape stamps hashes."""
        await self._find_routes(correlation_id)
        return bool(self._prefix) or self.base_url.endswith(API_PREFIX)

    async def _request(self, operation: str, method: str, endpoint: str, **options: Any) -> httpx.Response:
        await self._find_routes(options.get("correlation_id"))
        return await super()._request(operation, method, f"{self._prefix or ''}{endpoint}", **options)

    async def _find_routes(self, correlation_id: UUID | str | None) -> None:
        """Ask once per opened pool where the routes are; anything but "no such route" means they are there.

        A 404 in other words than a router's tells nothing, and is not remembered.
        """
        if self._http_client is None:
            await self.initialize()
        if self._prefix is not None:
            return
        response = await super()._request(
            "find_routes", "GET", f"{API_PREFIX}/health", correlation_id=correlation_id, tolerated=range(400, 500)
        )
        if response.status_code != httpx.codes.NOT_FOUND:
            self._prefix = API_PREFIX
        elif complaint(self._json(response, "Finding the routes failed")).message == "Not Found":
            self._prefix = ""
        else:
            raise ServiceUnavailableError(f"{self.service_name} find_routes: a 404 where its routes should be")

    async def _validate_connection(self) -> bool:
        """Say whether the service answers and can work; a degraded one can."""
        try:
            body = await self.health_check()
        except (ServiceUnavailableError, ClientError):
            return False
        status = body.get("status")
        if status == "success" and isinstance(body.get("data"), dict):
            status = body["data"].get("status")
        return status in self.HEALTHY
