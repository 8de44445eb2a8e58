"""What a signature or canvas is as a job: its id, the parts that end it, and the key that the same work has again.

It marks each task with the job that it is a step of, before anything is sent; it sends nothing itself.
"""

from collections.abc import Iterator
from typing import Any, cast
from uuid import UUID, uuid4

from celery import chord, group, signature
from celery.canvas import Signature

from bridge_tasks import correlation
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.ledger.envelope import JOINED
from bridge_tasks.ledger.keys import file_digest, idempotency_key
from bridge_tasks.ledger.records import Submission
from bridge_tasks.messages import ASIDE, HEADER, JOB, PART

_LASTING = frozenset(
    {"bridge.generate_hash", "bridge.create_stamp", "bridge.stamp_file", "bridge.batch_create_stamps"}
)
"""Work whose outcome stands: the same content has the same hash, and a stamp is not made twice. An answer about a
service's state does not; nor does what lies at a URL, which may be other content by now."""

_KEPT_OPTIONS = ("queue", "priority", "expires")
_CALLBACKS = ("link", "link_error")
_OF_ONE_SENDING = ("task_id", "group_id", "group_index", "chord", "root_id", "parent_id", "reply_to")


def fresh(work: Signature[Any]) -> Signature[Any]:
    """Return a copy without ids: one signature may be submitted many times, each time as another job.

    Raises:
        InvalidRequest: it is none.
    """
    if not isinstance(work, Signature):
        raise InvalidRequest(
            "work", f"is a {type(work).__name__}: submit a task's `.s(…)`, a canvas, or what workflows build"
        )
    if type(work) is Signature and not any(map(work.options.get, _CALLBACKS)):
        # Without a deep copy: this is on the way of every job.
        options = {name: value for name, value in work.options.items() if name not in _OF_ONE_SENDING}
        app = work._app  # type: ignore[attr-defined] # noqa: SLF001 - as `clone` does
        return Signature(work.task, work.args, dict(work.kwargs), options, immutable=work.immutable, app=app)
    copy: Signature[Any] = work.clone()
    if isinstance(copy, chord):
        copy.kwargs["header"] = [fresh(member) for member in _members(_header(copy)) or ()]
        copy.kwargs["body"] = fresh(copy.body)
    elif (members := _members(copy)) is not None:
        copy.kwargs["tasks"] = [fresh(member) for member in members]
    for name in _OF_ONE_SENDING:
        copy.options.pop(name, None)
    if _members(copy) is not None and copy.options.get("headers"):  # they would hide those of its tasks
        headers = copy.options.pop("headers")
        for task in tasks_of(copy):
            task.options["headers"] = {**(task.options.get("headers") or {}), **headers}
    for name in _CALLBACKS:
        if copy.options.get(name):
            copy.options[name] = [fresh(hooked) for hooked in _hooked(copy, name)]
    return copy


def address(work: Signature[Any], correlation_id: UUID | str | None) -> None:
    """Have every task of a canvas, of which there is no other copy (`fresh`), carry this id; None: what it has."""
    if correlation_id is not None:
        carries = {HEADER: correlation.parse(correlation_id)}
        for task in tasks_of(work):
            task.options["headers"] = {**(task.options.get("headers") or {}), **carries}


def planned(work: Signature[Any], *, force: bool = False) -> Submission:
    """Prepare a signature or canvas, of which there is no other copy (`fresh`), to be sent as one job.

    Raises:
        InvalidRequest: there is nothing in it.
    """
    tasks = list(tasks_of(work))
    if not tasks:
        raise InvalidRequest("work", "is an empty canvas")
    key = idempotency_key(_shape(work))
    parts = tuple(_ends(_named(work)))
    alone = len(parts) == 1 and not isinstance(work, group)  # a group of one has a list of one, as Celery's
    job = parts[0] if alone else str(uuid4())
    mark(work, job, job if alone else None)
    steps = steps_of(work)
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
        steps=steps if len(steps) > 1 or not alone else (),
    )


def in_one_message(work: Signature[Any]) -> bool:
    """Say whether a canvas is sent as one message: a task, or a chain that begins with one."""
    return not isinstance(_first(work), group | chord)


def steps_of(work: Signature[Any]) -> tuple[tuple[str, str], ...]:
    """Give the id and the name of each task of a canvas whose ends are settled."""
    return tuple((str(task.options["task_id"]), str(task.task)) for task in tasks_of(work))


def heirs(work: Signature[Any], task_id: str, job: str, part: str, *, joined: bool) -> tuple[tuple[str, str], ...]:
    """Prepare a canvas to take the place of a task that is a step of a job, and return its steps."""
    mark(_named(work, task_id), job, part, joined=joined)
    return steps_of(work)


def _hooked(work: Signature[Any], name: str) -> list[Signature[Any]]:
    """The callbacks of a signature."""
    given = work.options.get(name) or []
    hooked = given if isinstance(given, list | tuple) else [given]
    return [one if isinstance(one, Signature) else signature(one, app=work.app) for one in hooked]


def tasks_of(work: Signature[Any]) -> Iterator[Signature[Any]]:
    """All tasks of a canvas, in order."""
    if isinstance(work, chord):
        yield from tasks_of(_header(work))
        yield from tasks_of(work.body)
    elif _members(work) is not None:
        for member in _members(work) or ():
            yield from tasks_of(member)
    else:
        yield work


def _members(work: Signature[Any]) -> list[Any] | None:
    if type(work) is Signature:
        return None
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
    hooked = [[name, *map(_shape, _hooked(work, name))] for name in _CALLBACKS if work.options.get(name)]
    if isinstance(work, chord):
        return ["chord", _shape(_header(work)), _shape(work.body), *hooked]
    members = _members(work)
    if members is not None:
        return [work.task, *map(_shape, members), *hooked]
    options = {name: work.options[name] for name in _KEPT_OPTIONS if work.options.get(name) is not None}
    return [work.task, work.args, _plain(work.kwargs), bool(work.immutable), options, *hooked]


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments without the signature that `celery.map` and its like have among theirs."""
    return {
        name: _shape(value) if isinstance(value, Signature) else list(value) if name == "it" else value
        for name, value in arguments.items()
    }


def _named(work: Signature[Any], last: str | None = None) -> Signature[Any]:
    """Give each task of a canvas an id: Celery would do so by asking its result backend about each of a group.

    Args:
        work: the canvas.
        last: the id of the task with which it ends.
    """
    for task in tasks_of(work):
        task.options.setdefault("task_id", str(uuid4()))
    if last is not None:
        _last(work).options["task_id"] = last
    return work


def _last(work: Signature[Any]) -> Signature[Any]:
    if isinstance(work, chord):
        return _last(work.body)
    members = _members(work)
    return _last(members[-1]) if members else work


def _ends(work: Signature[Any]) -> Iterator[str]:
    """Give the ids of the tasks with which a canvas ends."""
    members = _members(work)
    if isinstance(work, chord):
        yield from _ends(work.body)
    elif isinstance(work, group):
        for member in members or ():
            yield from _ends(member)
    elif members is not None:
        yield from _ends(members[-1])
    else:
        yield str(work.options["task_id"])


def mark(work: Signature[Any], job: str, part: str | None, *, joined: bool = False) -> None:
    """Write into each task of which job, and of which part of it, it is a step.

    Args:
        work: the canvas, its tasks named.
        job: the job's id.
        part: the part that all of it leads to, "" where that are several; None where its members end each for
            themselves.
        joined: whether it is of a chord's header.
    """
    _mark_callbacks(work, job)
    if isinstance(work, chord):
        ending = _one_end(work.body) if part is None else part
        mark(_header(work), job, ending, joined=True)
        mark(work.body, job, ending or part, joined=joined)
        return
    members = _members(work)
    if members is None:
        told = {JOB: job, PART: work.options.get("task_id", "") if part is None else part}
        if joined:
            told[JOINED] = "1"
        work.options.update(headers={**(work.options.get("headers") or {}), **told}, ignore_result=True)
        return
    if isinstance(work, group):
        for member in members:
            mark(member, job, _one_end(member) or None if part is None else part, joined=joined)
        return
    *before, last = members
    ending = _one_end(last) if part is None else part
    for member in before:
        mark(member, job, ending, joined=joined)
    mark(last, job, ending or part, joined=joined)


def _mark_callbacks(work: Signature[Any], job: str) -> None:
    """Give each callback an id now: its message is sent once, however often what it follows is told of."""
    for name in _CALLBACKS:
        if work.options.get(name):
            work.options[name] = _hooked(work, name)
            for hooked in work.options[name]:
                mark(_named(hooked), job, ASIDE)


def _one_end(work: Signature[Any]) -> str:
    """The id of the one task with which a canvas ends; "" where there are several."""
    ends = list(_ends(work))
    return ends[0] if len(ends) == 1 else ""


def _title(work: Signature[Any]) -> str:
    names = [str(task.task).removeprefix("bridge.") for task in tasks_of(work)]
    if len(names) == 1 and not isinstance(work, group):
        return str(next(tasks_of(work)).task)
    kind = "group" if isinstance(work, group) else "chord" if isinstance(work, chord) else "chain"
    shown = " | ".join(names[:4]) if kind == "chain" else f"{len(names)} tasks" if len(names) > 1 else names[0]
    return f"{kind}: {shown}{' | …' if kind == 'chain' and len(names) > 4 else ''}"  # noqa: PLR2004 - a screen's width


def _path(content: Any) -> str | None:
    told = content if isinstance(content, dict) else getattr(content, "__dict__", {})
    path = told.get("path") if told.get("kind") == "file" else None
    return path if isinstance(path, str) else None


def _from_web(content: Any) -> bool:
    told = content if isinstance(content, dict) else getattr(content, "__dict__", {})
    return bool(told.get("kind") == "url")
