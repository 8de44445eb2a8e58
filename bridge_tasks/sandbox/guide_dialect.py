"""The metadata service as the client guide expects it: bare routes, a stamp per file hash, errors at top level.

Unknown fields are ignored, so one body with both dialects' fields works here too.
"""

from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, File, HTTPException, Query, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from bridge_tasks.sandbox.asking import who_asks
from bridge_tasks.sandbox.backend import METADATA_VERSION, VERSION, Backend, Stopwatch, work
from bridge_tasks.sandbox.envelope import Json, grade
from bridge_tasks.sandbox.keys import Asked
from bridge_tasks.sandbox.refusals import flat_error
from bridge_tasks.sandbox.service_vitals import measured
from bridge_tasks.sandbox.stamp_store import DEFAULT_NAMESPACE, NewStamp
from bridge_tasks.sandbox.stamping import (
    TARGET_PROTOCOL,
    Stamped,
    hash_file,
    judge_protocol,
    stamp_content,
    validate_content,
)


class StampRequest(BaseModel):
    file_hash: str = Field(min_length=1)
    file_path: str
    file_size: NonNegativeInt
    content_type: str | None = None
    stamp_data: Json = Field(default_factory=dict)
    namespace: str | None = DEFAULT_NAMESPACE
    content: str | None = None


class ValidateRequest(BaseModel):
    content: str
    namespace: str | None = None


class BatchRequest(BaseModel):
    items: list[Json] = Field(min_length=1)
    namespace: str | None = DEFAULT_NAMESPACE


class ProtocolRequest(BaseModel):
    content: str
    target_protocol: str = TARGET_PROTOCOL
    namespace: str | None = "default"


class GuideDialect:
    """The endpoints."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def router(self) -> APIRouter:
        """Return every route of this dialect."""
        router = APIRouter()
        for method, path, endpoint in (
            ("POST", "/hash", self.hash),
            ("POST", "/stamp", self.stamp),
            ("GET", "/stamp/{file_hash}", self.get_stamp),
            ("POST", "/validate", self.validate),
            ("POST", "/batch", self.batch),
            ("POST", "/validate-protocol", self.validate_protocol),
            ("GET", "/namespace/{namespace}", self.namespace),
            ("GET", "/metrics", self.metrics),
            ("GET", "/health", self.health),
        ):
            router.add_api_route(path, endpoint, methods=[method])
        return router

    async def hash(
        self, request: Request, file: Annotated[UploadFile, File()], namespace: str = "default"
    ) -> Response:
        size = file.size or 0
        _refuse_beyond(self._backend.limits.upload, size)
        watch = Stopwatch()
        digest = await work(size, hash_file, file.file)
        milliseconds = watch.milliseconds()
        self._backend.timings.note(milliseconds)
        request.state.file_hash = digest
        data = {
            "hash": digest,
            "execution_time_ms": milliseconds,
            "performance_grade": grade(milliseconds, 1, 2),
            "file_size_bytes": size,
            "namespace": namespace,
        }
        return _success(data)

    async def stamp(self, request: Request, body: StampRequest) -> Response:
        request.state.file_hash = body.file_hash
        self._refuse_long(body.content)
        return _success(await self._stamp(body, await who_asks(request, self._backend), once=True))

    async def get_stamp(self, request: Request, file_hash: str, namespace: str | None = None) -> Response:
        request.state.file_hash = file_hash
        row = self._backend.store.find(file_hash)
        if row is None or namespace not in (None, row["stamp_data"]["namespace"]):
            # The guide's tests show "not found" as HTTP 200 with an error body.
            return JSONResponse(flat_error("stamp not found"))
        return _success(_stamp_answer(row))

    async def validate(self, body: ValidateRequest) -> Response:
        self._refuse_long(body.content)
        result = await work(len(body.content), validate_content, body.content)
        valid = sum(checked.is_valid for checked in result.stamps)
        data = {
            "validation_result": result.is_valid,
            "stamps_found": len(result.stamps),
            "valid_stamps": valid,
            "invalid_stamps": len(result.stamps) - valid,
            "details": [
                {"stamp_type": each.stamp.kind, "stamp_hash": each.stamp.hash, "is_valid": each.is_valid}
                for each in result.stamps
            ],
        }
        return _success(data)

    async def batch(self, request: Request, body: BatchRequest) -> Response:
        asked = await who_asks(request, self._backend)
        self._backend.store.claim(asked)
        results = [await self._batch_item(index, item, body, asked) for index, item in enumerate(body.items)]
        request.state.file_hash = ",".join(str(item.get("file_hash")) for item in body.items)
        successful = sum(result["success"] for result in results)
        data = {
            "total": len(results),
            "successful": successful,
            "failed": len(results) - successful,
            "results": results,
        }
        if not successful:
            return JSONResponse({**flat_error("every item failed"), "data": data})
        return JSONResponse({"status": "success" if successful == len(results) else "partial", "data": data})

    async def validate_protocol(self, body: ProtocolRequest) -> Response:
        self._refuse_long(body.content)
        verdict = await work(
            len(body.content), judge_protocol, body.content, body.target_protocol, body.namespace or "default"
        )
        return _success({"validation_result": verdict})

    async def namespace(
        self,
        namespace: str,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        total, rows = self._backend.store.page(namespace, limit, offset)
        stamps = [_stamp_answer(row) for row in rows]
        return _success({"namespace": namespace, "total_stamps": total, "stamps": stamps})

    async def metrics(self) -> Response:
        return JSONResponse(measured(self._backend))

    async def health(self) -> Response:
        return JSONResponse({"status": "healthy", "version": VERSION})

    async def _batch_item(self, index: int, item: Json, batch: BatchRequest, asked: Asked) -> Json:
        try:
            request = StampRequest.model_validate({"namespace": batch.namespace, **item})
            self._refuse_long(request.content)
            answer = await self._stamp(request, asked.item(index, item), once=False)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, detail["loc"])) for detail in error.errors())
            return _failed(item, f"missing or wrong: {fields}")
        except ValueError as error:
            return _failed(item, str(error))
        except HTTPException as error:
            return _failed(item, error.detail)
        return {"success": True, "error": None, **answer}

    async def _stamp(self, body: StampRequest, asked: Asked, *, once: bool) -> Json:
        """Keep a stamp under the hash the caller names; with content, also write the stamp into it.

        `once` gives the row that is there already, where a batch item fails on it.
        """
        namespace = body.namespace or DEFAULT_NAMESPACE
        stamp_data: Json = {"metadata": body.stamp_data, "namespace": namespace}
        stamped: Stamped | None = None
        if body.content is not None:
            stamped = await work(
                len(body.content), stamp_content, body.content, "lightweight", body.stamp_data, body.file_path
            )
            stamp_data |= {"stamp_type": stamped.stamp_type, "stamp": stamped.stamp}
        keep = self._backend.store.find_or_add if once else self._backend.store.add
        kept = keep(
            NewStamp(
                file_hash=body.file_hash,
                file_path=body.file_path,
                file_size=body.file_size,
                content_type=body.content_type,
                stamp_data=stamp_data,
                namespace=namespace,
            ),
            asked,
        )
        answer = _stamp_answer(kept.row)
        if stamped is None or body.content is None:
            return answer
        stamped = stamped.answering(kept.stamp, body.content)
        return {**answer, "stamp": stamped.stamp, "stamped_content": stamped.stamped_content}

    def _refuse_long(self, content: str | None) -> None:
        _refuse_beyond(self._backend.limits.content, len((content or "").encode()))


def _stamp_answer(row: Json) -> Json:
    kept = {key: row[key] for key in ("file_hash", "file_path", "file_size", "content_type", "created_at")}
    return {
        "stamp_id": row["id"],
        **kept,
        "stamp_data": row["stamp_data"]["metadata"],
        "namespace": row["stamp_data"]["namespace"],
        "op_id": str(uuid4()),
        "version": 1,
        "metadata_version": METADATA_VERSION,
    }


def _failed(item: Json, error: str) -> Json:
    return {"success": False, "file_hash": item.get("file_hash"), "error": error}


def _success(data: Json) -> Response:
    return JSONResponse({"status": "success", "data": data})


def _refuse_beyond(limit: int, size: int) -> None:
    if size > limit:
        raise HTTPException(413, f"size exceeds the maximum of {limit} bytes")
