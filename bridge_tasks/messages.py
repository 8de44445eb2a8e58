"""What every message of ours carries besides its task: a correlation id, and a description without content.

It is written where our application builds messages, so it holds for first tasks, later steps of a chain, callbacks
and retries, whoever publishes them, and for no other application in the process.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import current_task
from celery.app.amqp import AMQP, task_message
from pydantic import TypeAdapter, ValidationError

from bridge_tasks import correlation, tracing
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.models.content import ContentRef, describe

HEADER = correlation.CELERY_HEADER

JOB, PART = "x-bridge-job", "x-bridge-part"
"""Of which submitted job a message is a step, and which of its parts ends with it ("": several do)."""
ASIDE = "-"
"""The part of a callback: it is a step of the job, and the job ends without it."""
ITEM = "x-bridge-item"
"""Which file of a bulk run it is about, or which chunk of files: `run|chunk|index`."""
ITEM_SHAPE = re.compile(r"[0-9a-f-]{36}\|\d{1,8}\|\d{0,8}")
SUBJECT = "x-bridge-subject"
"""What it is about: a path, a question; for the ledger."""
WAITS = "x-bridge-waits"
"""How many runs of the task ended because a call was kept back. They are no attempts."""

OUR_TASKS = "bridge."
_CARRIERS = frozenset({"celery.map", "celery.starmap", "celery.chunks"})
"""Tasks of Celery's that carry arguments of ours among theirs."""

_EMBEDDED = ("callbacks", "errbacks", "chain")
_TOLD = ("run", "number", "file_path", "file_hash", "namespace", "context", "query", "start_node")
"""Arguments that people look for. No other one is shown: a field that nobody thought of stays hidden."""

_CANVASES = ("chain", "group", "chord")
_MEMBERS = ("tasks", "header", "body")
_PLACE = 1_000_000
_SUBJECTS = ("run", "file_path", "context", "query", "start_node", "file_hash")
_SUBJECT_CHARS = 512
_UNTOLD = "(…)"

_content: TypeAdapter[ContentRef] = TypeAdapter(ContentRef)


_later: ContextVar[list[dict[str, Any]] | None] = ContextVar("bridge_announced_later", default=None)


@contextmanager
def announcing_later() -> Iterator[list[dict[str, Any]]]:
    """Collect, in a `with` block, what events would say of each message that is built, instead of saying so."""
    collected: list[dict[str, Any]] = []
    token = _later.set(collected)
    try:
        yield collected
    finally:
        _later.reset(token)


class FurnishingAMQP(AMQP):
    """Celery's own builder of messages, which writes the id and the description into each."""

    def as_task_v2(self, task_id: str, name: str, *args: Any, **options: Any) -> task_message:
        """Build a message; what events show of its arguments (`task-sent`, `task-received`) is our summary."""
        ours = name.startswith(OUR_TASKS) or name in _CARRIERS
        if ours:
            options |= {"argsrepr": _UNTOLD, "kwargsrepr": _UNTOLD}  # spares Celery its own
        message: task_message = super().as_task_v2(task_id, name, *args, **options)
        arguments, keywords, embedded = message.body
        given = options.get("headers") or {}
        cid = (
            _usable(given.get(HEADER))
            or _inherited()
            or _group_of(message.headers, embedded)
            or correlation.ensure()
        )
        marks = {HEADER: cid, **(tracing.carrier() or tracing.carried_by(given))}
        message.headers.update(marks)
        for wins in (given, given.get("headers")):  # Celery lets these win; Sentry's integration nests the second
            if isinstance(wins, dict) and (HEADER in wins or wins is not given):
                wins.update(marks)
        if ours:
            shown = {"args": _UNTOLD if arguments else "()", "kwargs": summary(keywords, cid)}
            message.headers.update(argsrepr=shown["args"], kwargsrepr=shown["kwargs"])
            message.headers[SUBJECT] = subject(keywords)
            if message.sent_event:
                message.sent_event.update(shown)
        later = _later.get()
        if later is not None and message.sent_event:
            later.append(message.sent_event)
            message = message._replace(sent_event=None)
        _mark_successors(embedded, marks)
        return message

    def _create_task_sender(self) -> Any:
        """Make what publishes messages; where somebody traces, that is a span, which the message names."""
        send = super()._create_task_sender()  # type: ignore[misc] # not in the stubs

        def traced(producer: Any, name: str, message: task_message, **options: Any) -> Any:
            if not tracing.is_on():
                return send(producer, name, message, **options)
            with tracing.span(
                f"publish {name}",
                "producer",
                message.headers,
                {
                    "messaging.message.id": message.headers["id"],
                    "bridge.correlation_id": message.headers[HEADER],
                },
            ) as span:
                message.headers.update(span.carrier)
                if options.get("headers"):  # they win
                    options["headers"] = {**options["headers"], **span.carrier}
                return send(producer, name, message, **options)

        return traced


def summary(keywords: Mapping[str, Any], cid: str) -> str:
    """Describe a task's arguments for people: `{'cid': '…', 'content': '/docs/a.md', 'namespace': '…'}`.

    Flower reads this as Celery writes arguments, so that `kwargs:cid=…` finds the tasks with just this id.
    """
    told = {"cid": cid}
    if "content" in keywords:
        told["content"] = _described(keywords["content"])[:_SUBJECT_CHARS]
    if isinstance(keywords.get("items"), list):
        told["items"] = str(len(keywords["items"]))
    return repr(told | {key: str(keywords[key])[:_SUBJECT_CHARS] for key in _TOLD if keywords.get(key)})


def subject(keywords: Mapping[str, Any]) -> str:
    """Say in a few words what a task is about: its file, its content, or its question."""
    for name in _SUBJECTS:
        value = keywords.get(name)
        if value:
            return str(value)[:_SUBJECT_CHARS]
    return _described(keywords["content"]) if "content" in keywords else ""


def rank_of(headers: Mapping[str, Any]) -> int:
    """Count how often a task was put into its queue on purpose: by retries and waits, and by tasks in its place.

    What takes a task's place begins at no retries, and yet comes after all of those that the task had.
    """
    *retries, places = (_count(headers.get(name)) for name in ("retries", WAITS, "replaced_task_nesting"))
    return places * _PLACE + sum(retries)


def _count(told: Any) -> int:
    return min(told, _PLACE // 4) if isinstance(told, int) and told > 0 else 0


def correlation_of(request: Any) -> str | None:
    """Return the id that came with a message that is being worked on (`task.request`)."""
    return _usable(request.get(HEADER))


def _inherited() -> str | None:
    """The id of the work that publishes this: the running task's, or the one bound by the caller."""
    carried = correlation_of(current_task.request) if current_task else None  # type: ignore[truthy-bool] # a proxy
    return carried or correlation.current()


def _group_of(headers: Mapping[str, Any], embedded: Mapping[str, Any]) -> str | None:
    """The group that this task, or the chain it begins, is a member of: all that its members have in common."""
    last = (embedded.get("chain") or [{}])[0]  # Celery keeps the steps to come in reverse
    return _usable(headers.get("group")) or _usable((last.get("options") or {}).get("group_id"))


def _usable(value: Any) -> str | None:
    try:
        return correlation.parse(value) if value else None
    except InvalidRequest:
        return None


def _described(content: Any) -> str:
    try:
        return describe(_content.validate_python(content))
    except ValidationError:
        return "?"


def _mark_successors(embedded: dict[str, Any], marks: Mapping[str, str]) -> None:
    """Give the id, and the trace, to what will be published later, perhaps by a process that knows no context."""
    for kind in _EMBEDDED:
        if embedded.get(kind):
            embedded[kind] = _marked_all(embedded[kind], marks)
    if embedded.get("chord"):
        embedded["chord"] = _marked(embedded["chord"], marks)


def _marked_all(signatures: Iterable[Any], marks: Mapping[str, str]) -> list[Any]:
    return [_marked(signature, marks) for signature in signatures]


def _marked(signature: Any, marks: Mapping[str, str]) -> Any:
    """Return a copy of a signature (they are dicts) that carries these, and so do the ones in it and on it.

    A canvas has no headers of its own: they would take the place of those that its tasks have.
    """
    marked = signature.clone() if hasattr(signature, "clone") else {**signature}
    options = dict(marked.get("options") or {})
    if marked.get("subtask_type") in _CANVASES:
        inner = {name: _marked_member(part, marks) for name, part in marked["kwargs"].items() if name in _MEMBERS}
        marked["kwargs"] = {**marked["kwargs"], **inner}
        if not options.get("headers"):
            options.pop("headers", None)
    else:
        options["headers"] = {**(options.get("headers") or {}), **marks}
    for hook in ("link", "link_error"):
        if options.get(hook):
            hooked = options[hook]
            options[hook] = _marked_all(hooked if isinstance(hooked, list | tuple) else [hooked], marks)
    marked["options"] = options
    return marked


def _marked_member(part: Any, marks: Mapping[str, str]) -> Any:
    return _marked(part, marks) if isinstance(part, Mapping) else _marked_all(part, marks)
