"""Canvas builders. They check what they are given and return signatures; they run nothing.

`stamp_file(...)` is the chain hash | intelligence | stamp: apply it, or put it into a group, a chord or a chain.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from celery import chain
from celery.canvas import Signature
from pydantic import BaseModel, ValidationError

from bridge_tasks import correlation
from bridge_tasks.chunking import CHUNK_BYTES, CHUNK_FILES, BulkRun, Source
from bridge_tasks.content import file_content, vet
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.ledger.run_records import RunOptions
from bridge_tasks.messages import HEADER
from bridge_tasks.models.content import BlobContent, ContentRef, FileContent, InlineContent, UrlContent
from bridge_tasks.models.fields import Hashing
from bridge_tasks.models.requests import DEFAULT_NAMESPACE, MAX_BATCH_ITEMS, StampFile, refusal
from bridge_tasks.settings import load
from bridge_tasks.tasks import create_stamp, generate_hash, get_intelligence
from bridge_tasks.tasks import stamp_file as stamp_file_task

S = TypeVar("S", bound=Signature[Any])


def stamp_file(
    source: Source,
    *,
    context: str,
    namespace: str = DEFAULT_NAMESPACE,
    file_path: str | None = None,
    stamp_data: dict[str, Any] | None = None,
    content_type: str | None = None,
    correlation_id: UUID | str | None = None,
    fallback: bool = True,
) -> chain:
    """Build the chain hash | intelligence | stamp, whose result is a `Stamped`.

    Args:
        source: a file under an allowed root, or another reference to content.
        context: what intelligence is asked about.
        namespace: where the stamp belongs.
        file_path: how the stamp names the file; by default its path, or the content's description.
        stamp_data: JSON to keep with the stamp, next to the intelligence.
        content_type: MIME type.
        correlation_id: carried through every step; by default the one bound here, else a new one.
        fallback: whether an outage of OnexTree yields a degraded stamp instead of an error.

    Raises:
        InvalidRequest: an argument is wrong; `field` and `reason` say which and why.
    """
    job = stamp_request(
        source,
        context=context,
        namespace=namespace,
        file_path=file_path,
        stamp_data=stamp_data,
        content_type=content_type,
    ).model_dump(mode="json", exclude_none=True)
    content, namespace = job.pop("content"), job.pop("namespace")
    steps = chain(
        generate_hash.si(content=content, namespace=namespace),  # in a longer chain, it takes nothing before it
        get_intelligence.s(context=job.pop("context"), namespace=namespace, fallback=fallback),
        create_stamp.s(content=content, namespace=namespace, **job),
    )
    return correlated(steps, correlation_id)


def stamp_files(
    sources: Iterable[Source],
    *,
    context: str | Callable[[Source], str],
    namespace: str = DEFAULT_NAMESPACE,
    stamp_data: dict[str, Any] | None = None,
    content_type: str | None = None,
    hashing: Hashing = "service",
    force: bool = False,
    chunk_files: int = CHUNK_FILES,
    chunk_bytes: int = CHUNK_BYTES,
    correlation_id: UUID | str | None = None,
    title: str = "files",
) -> BulkRun:
    """Plan a bulk run: many files as one thing, far cheaper for each than a job of its own.

    Args:
        sources: files under an allowed root, or other references to content; any number, read as they are sent.
        context: what intelligence is asked about; once for each distinct text. A function is given the source.
        namespace: where the stamps belong.
        stamp_data: JSON to keep with each stamp, next to the intelligence.
        content_type: MIME type of all.
        hashing: `service`, or `local`: in the worker, with the same BLAKE3, one file of each chunk checked against
            the service.
        force: stamp what an earlier run has stamped and what has not changed since, too.
        chunk_files: files that go to the service in one call, at most 1000.
        chunk_bytes: their size together, at most.
        correlation_id: carried through everything; by default the one bound here, else a new one.
        title: what people call it.

    Raises:
        InvalidRequest: an argument is wrong; `field` and `reason` say which and why. (A file that is refused is an
            outcome of the run, and holds nobody up.)
    """
    if isinstance(sources, str | os.PathLike | BaseModel):
        raise InvalidRequest("sources", "is one source: give a list of them")
    about = context if isinstance(context, str) else "…"
    sample = InlineContent.of(b"")
    request = stamp_request(
        sample, context=about, namespace=namespace, stamp_data=stamp_data, content_type=content_type
    )
    if not 1 <= chunk_files <= MAX_BATCH_ITEMS:
        raise InvalidRequest("chunk_files", f"must be 1 to {MAX_BATCH_ITEMS}")
    if chunk_bytes < 1:
        raise InvalidRequest("chunk_bytes", "must be at least 1")
    if hashing not in ("service", "local"):
        raise InvalidRequest("hashing", "must be service or local")
    return BulkRun(
        sources=sources,
        options=RunOptions(request.namespace, request.stamp_data, request.content_type, hashing, force),
        context=context,
        chunk_files=chunk_files,
        chunk_bytes=chunk_bytes,
        correlation_id=correlation.parse(correlation_id) if correlation_id is not None else None,
        title=title,
    )


def stamp_file_job(
    source: Source, *, context: str, correlation_id: UUID | str | None = None, **fields: Any
) -> Signature[Any]:
    """Build the same job as one message: cheaper, and with less to see.

    Arguments as `stamp_file`, and `hashing`: `service`, or `local`: in the worker, with the same BLAKE3, the first
    hash of each process and one in a hundred checked against the service.
    """
    job = stamp_request(source, context=context, **fields)
    return correlated(stamp_file_task.si(**job.model_dump(mode="json", exclude_none=True)), correlation_id)


def stamp_request(source: Source, *, file_path: str | None = None, **fields: Any) -> StampFile:
    """Check the arguments of a stamping job and put them together.

    Raises:
        InvalidRequest: one of them is wrong.
    """
    content = _referred(source)
    label = file_path or _label(content)
    given = {key: value for key, value in fields.items() if value is not None}
    try:
        return StampFile.model_validate({"content": content, "file_path": label, **given})
    except ValidationError as error:
        raise refusal(error) from None


def correlated(signature: S, correlation_id: UUID | str | None) -> S:
    """Give a signature, or every step of a chain, the id to travel with."""
    cid = correlation.parse(correlation_id) if correlation_id is not None else correlation.ensure()
    for step in getattr(signature, "tasks", [signature]):
        step.options["headers"] = {**(step.options.get("headers") or {}), HEADER: cid}
    return signature


def _referred(source: Source) -> ContentRef:
    settings = load().content
    if isinstance(source, str | os.PathLike):
        return file_content(source, settings)
    vet(source, settings)
    return source


def _label(content: ContentRef) -> str:
    """How a stamp names content that has no path of its own: the service requires one."""
    match content:
        case FileContent():
            return content.path
        case UrlContent():
            return Path(content.url.split("?")[0]).name or "content"
        case InlineContent() | BlobContent():
            return "content"
