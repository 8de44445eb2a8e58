"""What a signature or canvas is as a job: its id, the parts that end it, and the key that the same work has again.

It marks each task with the job that it is a step of, before anything is sent; it sends nothing itself.
"""

from collections.abc import Iterator
from typing import Any, cast
from uuid import uuid4

from celery import chord, group
from celery.canvas import Signature

from bridge_tasks.errors import InvalidRequest
from bridge_tasks.ledger.keys import file_digest, idempotency_key
from bridge_tasks.ledger.records import Submission
from bridge_tasks.messages import JOB, PART

_LASTING = frozenset(
    {"bridge.generate_hash", "bridge.create_stamp", "bridge.stamp_file", "bridge.batch_create_stamps"}
)
"""Work whose outcome stands: the same content has the same hash, and a stamp is not made twice. An answer about a
service's state does not; nor does what lies at a URL, which may be other content by now."""

_KEPT_OPTIONS = ("queue", "priority", "expires")


def planned(work: Signature[Any], *, force: bool = False) -> Submission:
    """Prepare a signature or canvas to be sent as one job.

    Raises:
        InvalidRequest: there is nothing in it.
    """
    tasks = list(_tasks(work))
    if not tasks:
        raise InvalidRequest("work", "is an empty canvas")
    key = idempotency_key(_shape(work))
    parts = tuple(_ends(work))
    job = parts[0] if len(parts) == 1 else str(uuid4())
    _mark(work, job, job if len(parts) == 1 else None)
    contents = [task.kwargs.get("content") for task in tasks]
    return Submission(
        job=job,
        key=key,
        lasting=any(task.task in _LASTING for task in tasks) and not any(map(_from_web, contents)),
        force=force,
        parts=parts,
        title=_title(work),
        whole=not isinstance(_first(work), group | chord),
        file=next((file_digest(path) for path in map(_path, contents) if path), ""),
    )


def _tasks(work: Signature[Any]) -> Iterator[Signature[Any]]:
    """All tasks of a canvas, in order."""
    if isinstance(work, chord):
        yield from _tasks(_header(work))
        yield from _tasks(work.body)
    elif _members(work) is not None:
        for member in _members(work) or ():
            yield from _tasks(member)
    else:
        yield work


def _members(work: Signature[Any]) -> list[Any] | None:
    if isinstance(work, group):
        work.kwargs["tasks"] = list(work.tasks)  # a generator is read once
    tasks = getattr(work, "tasks", None)
    return list(tasks) if tasks is not None else None


def _header(work: chord) -> group:
    if not isinstance(work.tasks, group):
        work.kwargs["header"] = group([*work.tasks])
    return cast("group", work.tasks)


def _first(work: Signature[Any]) -> Signature[Any]:
    """What of a canvas is sent first."""
    members = None if isinstance(work, group | chord) else _members(work)
    return _first(members[0]) if members else work


def _shape(work: Signature[Any]) -> list[Any]:
    """A canvas without its ids: what it does, and in which order."""
    if isinstance(work, chord):
        return ["chord", _shape(_header(work)), _shape(work.body)]
    members = _members(work)
    if members is not None:
        return [work.task, *map(_shape, members)]
    options = {name: work.options[name] for name in _KEPT_OPTIONS if work.options.get(name) is not None}
    return [work.task, work.args, work.kwargs, bool(work.immutable), options]


def _ends(work: Signature[Any]) -> Iterator[str]:
    """Give the ids of the tasks that end a canvas, settled now; freezing all of it would ask the backend."""
    members = _members(work)
    if isinstance(work, chord):
        yield from _ends(work.body)
    elif members is None:
        yield str(work.freeze().id)
    else:
        for member in members if isinstance(work, group) else members[-1:]:
            yield from _ends(member)


def _mark(work: Signature[Any], job: str, part: str | None) -> None:
    """Write into each task of which job, and of which part of it, it is a step.

    Args:
        work: the canvas, frozen.
        job: the job's id.
        part: the part that all of it leads to; None where its members end each for themselves.
    """
    if isinstance(work, chord):
        ending = part or _one_end(work.body)
        _mark(_header(work), job, ending)
        _mark(work.body, job, ending or None)
        return
    members = _members(work)
    if members is None:
        headers = {
            **(work.options.get("headers") or {}),
            JOB: job,
            PART: part or work.options.get("task_id") or "",
        }
        work.options.update(headers=headers, ignore_result=True)
        return
    if isinstance(work, group):
        for member in members:
            _mark(member, job, part if part is not None else _one_end(member))
        return
    *before, last = members
    ending = part if part is not None else _one_end(last)
    for member in before:
        _mark(member, job, ending)
    _mark(last, job, part if part is not None else (ending or None))


def _one_end(work: Signature[Any]) -> str:
    """The id of the one task with which a canvas ends; "" where there are several."""
    ends = list(_ends(work))
    return ends[0] if len(ends) == 1 else ""


def _title(work: Signature[Any]) -> str:
    names = [str(task.task).removeprefix("bridge.") for task in _tasks(work)]
    if len(names) == 1:
        return str(next(_tasks(work)).task)
    kind = "group" if isinstance(work, group) else "chord" if isinstance(work, chord) else "chain"
    shown = " | ".join(names[:4]) if kind == "chain" else f"{len(names)} tasks"
    return f"{kind}: {shown}{' | …' if kind == 'chain' and len(names) > 4 else ''}"  # noqa: PLR2004 - a screen's width


def _path(content: Any) -> str | None:
    told = content if isinstance(content, dict) else getattr(content, "__dict__", {})
    path = told.get("path") if told.get("kind") == "file" else None
    return path if isinstance(path, str) else None


def _from_web(content: Any) -> bool:
    told = content if isinstance(content, dict) else getattr(content, "__dict__", {})
    return bool(told.get("kind") == "url")
