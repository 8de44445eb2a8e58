"""Canvas builders. They check what they are given and return signatures; they run nothing.

`stamp_file(...)` is the chain hash | intelligence | stamp: apply it, or put it into a group, a chord or a chain.
"""

import os
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from celery import chain
from celery.canvas import Signature
from pydantic import ValidationError

from bridge_tasks import correlation
from bridge_tasks.content import file_content, vet
from bridge_tasks.messages import HEADER
from bridge_tasks.models.content import BlobContent, ContentRef, FileContent, InlineContent, UrlContent
from bridge_tasks.models.requests import DEFAULT_NAMESPACE, StampFile, refusal
from bridge_tasks.settings import load
from bridge_tasks.tasks import create_stamp, generate_hash, get_intelligence
from bridge_tasks.tasks import stamp_file as stamp_file_task

S = TypeVar("S", bound=Signature[Any])

Source = str | os.PathLike[str] | ContentRef


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


def stamp_file_job(
    source: Source, *, context: str, correlation_id: UUID | str | None = None, **fields: Any
) -> Signature[Any]:
    """Build the same job as one message: cheaper, and with less to see. Arguments as `stamp_file`."""
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
