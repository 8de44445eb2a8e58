"""The metadata service as it runs: prefixed routes, content required, refusals wrapped in `detail`.

Follows the wire contract to the letter, oddities included, except where a service of our own does better:
text without stamps validates to "not valid", the protocol check knows its own stamps, a namespace is listed.
"""

import re
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, File, HTTPException, Query, Request, UploadFile
from fastapi.responses import JSONResponse, Response

from bridge_tasks.sandbox.asking import who_asks
from bridge_tasks.sandbox.backend import METADATA_VERSION, PREFIX, Backend, Stopwatch, work
from bridge_tasks.sandbox.envelope import Json, Status, envelope, grade, refusal, success
from bridge_tasks.sandbox.keys import Asked
from bridge_tasks.sandbox.service_requests import BatchRequest, ProtocolRequest, StampRequest, ValidateRequest
from bridge_tasks.sandbox.stamp_store import DEFAULT_NAMESPACE, NewStamp
from bridge_tasks.sandbox.stamping import (
    Stamped,
    Validation,
    hash_file,
    judge_protocol,
    stamp_content,
    validate_content,
)

_HASH = re.compile(r"[0-9a-f]{64}")


class ServiceDialect:
    """The endpoints; each returns the finished response, so FastAPI does not walk the payload again."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def router(self) -> APIRouter:
        """Return the prefixed routes that do the work; `service_vitals` has those about the service itself."""
        router = APIRouter()
        for method, path, endpoint in (
            ("POST", "/hash", self.hash),
            ("POST", "/stamp", self.stamp),
            ("GET", "/stamp/{file_hash}", self.get_stamp),
            ("POST", "/validate", self.validate),
            ("POST", "/batch", self.batch),
            ("POST", "/validate-protocol", self.validate_protocol),
            ("GET", "/namespace/{namespace}", self.namespace),
        ):
            router.add_api_route(PREFIX + path, endpoint, methods=[method])
        return router

    async def hash(
        self, request: Request, file: Annotated[UploadFile, File()], namespace: str = "default"
    ) -> Response:
        size = file.size or 0
        self._refuse_beyond(self._backend.limits.upload, size, "File")
        watch = Stopwatch()
        digest = await work(size, hash_file, file.file)
        milliseconds = watch.milliseconds()
        self._backend.timings.note(milliseconds)
        request.state.file_hash = digest
        data = {
            "file_hash": digest,
            "execution_time_ms": milliseconds,
            "file_size_bytes": size,
            "performance_grade": grade(milliseconds, 1, 2),
        }
        return success(data, {"namespace": namespace, "filename": file.filename, "operation": "generate_hash"})

    async def stamp(self, request: Request, body: StampRequest) -> Response:
        self._refuse_long(body.content)
        watch = Stopwatch()
        asked = await who_asks(request, self._backend)
        stamped, row = await work(len(body.content), self._stamp, body, asked)
        request.state.file_hash = stamped.file_hash
        data = {
            "success": True,
            "stamp_id": row["id"],
            "file_hash": stamped.file_hash,
            "stamped_content": stamped.stamped_content,
            "stamp": stamped.stamp,
            "stamp_type": stamped.stamp_type,
            "performance_metrics": _performance(watch, 10, 50, stamped.file_size),
            "created_at": row["created_at"],
            "op_id": None,
            "namespace": DEFAULT_NAMESPACE,
            "version": 1,
            "metadata_version": METADATA_VERSION,
        }
        metadata = {
            "namespace": body.namespace,
            "protocol_version": body.protocol_version,
            "operation": "create_stamp",
        }
        return success(data, metadata)

    async def get_stamp(self, request: Request, file_hash: str, namespace: str | None = None) -> Response:
        request.state.file_hash = file_hash
        if not _HASH.fullmatch(file_hash):
            raise refusal(
                400, "INVALID_HASH_FORMAT", "a hash has 64 lower-case hexadecimal characters", "file_hash"
            )
        row = self._backend.store.find(file_hash)
        if row is None:
            raise refusal(404, "STAMP_NOT_FOUND", "there is no stamp for this hash", "file_hash")
        if namespace is not None and row["stamp_data"].get("namespace") != namespace:
            raise refusal(
                404,
                "STAMP_NOT_FOUND_IN_NAMESPACE",
                "the stamp for this hash is in another namespace",
                "namespace",
            )
        return success(row, {"file_hash": file_hash, "namespace": namespace, "operation": "get_stamp"})

    async def validate(self, body: ValidateRequest) -> Response:
        self._refuse_long(body.content)
        watch = Stopwatch()
        result = await work(len(body.content), validate_content, body.content, body.options.expected_hash)
        data = {
            "success": True,
            "is_valid": result.is_valid,
            "stamps_found": len(result.stamps),
            "current_hash": result.current_hash,
            "validation_details": _details(result),
            "performance_metrics": _performance(watch, 10, 50),
        }
        metadata = {
            "namespace": body.namespace,
            "validation_summary": {"valid": result.is_valid, "stamps_found": len(result.stamps)},
            "operation": "validate_stamps",
        }
        return success(data, metadata)

    async def batch(self, request: Request, body: BatchRequest) -> Response:
        if not body.items:
            raise refusal(400, "EMPTY_BATCH_REQUEST", "items must not be empty", "items")
        watch = Stopwatch()
        asked = await who_asks(request, self._backend)
        self._backend.store.claim(asked)
        results = [await self._batch_item(index, item, body, asked) for index, item in enumerate(body.items)]
        successful = sum(result["success"] for result in results)
        request.state.file_hash = ",".join(result["file_hash"] for result in results if result["file_hash"])
        data = {
            "total_items": len(results),
            "successful_items": successful,
            "failed_items": len(results) - successful,
            "results": results,
            "overall_performance": _performance(watch, 1000, 5000),
        }
        status: Status = "success" if successful == len(results) else "partial" if successful else "error"
        metadata = {
            "namespace": body.namespace,
            "protocol_version": body.protocol_version,
            "operation": "batch_stamp",
        }
        return JSONResponse(envelope(data, status=status, metadata=metadata))

    async def validate_protocol(self, body: ProtocolRequest) -> Response:
        self._refuse_long(body.content)
        watch = Stopwatch()
        verdict = await work(len(body.content), judge_protocol, body.content, body.target_protocol, body.namespace)
        data = {"validation_result": verdict, "performance_metrics": _performance(watch, 5, 20)}
        metadata = {
            "namespace": body.namespace,
            "target_protocol": body.target_protocol,
            "validation_level": body.validation_level,
            "operation": "validate_protocol",
        }
        return success(data, metadata)

    async def namespace(
        self,
        namespace: str,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        total, rows = self._backend.store.page(namespace, limit, offset)
        data = {
            "namespace": namespace,
            "total_stamps": total,
            "stamps": rows,
            "pagination": {
                "limit": limit,
                "offset": offset,
                "total": total,
                "has_more": offset + len(rows) < total,
            },
        }
        return success(data, {"namespace": namespace, "operation": "query_namespace"})

    def _stamp(self, body: StampRequest, asked: Asked) -> tuple[Stamped, Json]:
        stamped = stamp_content(body.content, body.options.stamp_type, body.metadata or {}, body.file_path)
        namespace = body.namespace or DEFAULT_NAMESPACE
        new = new_stamp(stamped, body.file_path, namespace, body.protocol_version)
        kept = self._backend.store.find_or_add(new, asked)
        return stamped.answering(kept.stamp, body.content), kept.row

    async def _batch_item(self, index: int, item: Json, batch: BatchRequest, asked: Asked) -> Json:
        identity = item.get("id", f"item_{uuid4().hex}")
        if not isinstance(identity, str):
            raise TypeError("an item's id must be a string")
        watch = Stopwatch()
        stamped: Stamped | None = None
        stamp_id = error = None
        try:
            content = item.get("content", "")
            self._refuse_long(content)
            file_path = item.get("file_path")
            stamped = await work(
                len(content),
                stamp_content,
                content,
                batch.options.stamp_type,
                item.get("metadata") or {},
                file_path,
            )
            namespace = item.get("namespace") or batch.namespace
            new = new_stamp(stamped, file_path, namespace, batch.protocol_version)
            kept = self._backend.store.add(new, asked.item(index, item))
            stamped = stamped.answering(kept.stamp, content)
            stamp_id = kept.row["id"]
        except (ValueError, TypeError, AttributeError) as problem:
            error = str(problem)
        except HTTPException as problem:
            error = problem.detail
        return {
            "id": identity,
            "success": error is None,
            "stamp_id": stamp_id,
            "file_hash": stamped and stamped.file_hash,
            "stamp": stamped.stamp if stamped and error is None else None,
            "error": error,
            "performance_metrics": _performance(watch, 10, 50, stamped.file_size if stamped else 0),
        }

    def _refuse_long(self, content: str) -> None:
        limit = self._backend.limits.content
        # A character takes one to four bytes, so most texts need not be encoded to be measured.
        size = len(content) if len(content) > limit or len(content) * 4 <= limit else len(content.encode())
        self._refuse_beyond(limit, size, "Content")

    @staticmethod
    def _refuse_beyond(limit: int, size: int, what: str) -> None:
        if size > limit:
            raise HTTPException(413, f"{what} size exceeds maximum allowed size of {limit} bytes")


def new_stamp(stamped: Stamped, file_path: str | None, namespace: str, protocol_version: str) -> NewStamp:
    """Make the row that keeps a stamp."""
    return NewStamp(
        file_hash=stamped.file_hash,
        file_path=file_path,
        file_size=stamped.file_size,
        content_type=stamped.content_type,
        stamp_data={
            "stamp_type": stamped.stamp_type,
            "stamp": stamped.stamp,
            "metadata": stamped.metadata,
            "namespace": namespace,
        },
        namespace=namespace,
        protocol_version=protocol_version,
    )


def _performance(
    watch: Stopwatch, excellent_below: float, good_below: float, file_size: int | None = None
) -> Json:
    milliseconds = watch.milliseconds()
    return {
        "execution_time_ms": milliseconds,
        "file_size_bytes": file_size,
        "cpu_usage_percent": None,
        "performance_grade": grade(milliseconds, excellent_below, good_below),
    }


def _details(result: Validation) -> list[Json]:
    if any(checked.stamp.hash is None for checked in result.stamps):
        # The known service cannot show a null hash either, and says 422.
        raise ValueError("a rich stamp has no hash")
    return [
        {
            "stamp_type": checked.stamp.kind,
            "stamp_hash": checked.stamp.hash,
            "is_valid": checked.is_valid,
            "current_hash": checked.current_hash,
        }
        for checked in result.stamps
    ]
