"""Log lines: one per fact, each with its correlation id, through structlog over the standard library.

`configure` is for processes that are ours (workers, the command line); as a library we only emit records. What a
line says of a job is its subject (a path, a question), never its content.
"""

import logging
import sys
from contextvars import ContextVar
from typing import Any

import structlog
from structlog.dev import plain_traceback
from structlog.tracebacks import ExceptionDictTransformer
from structlog.types import EventDict, Processor

from bridge_tasks import correlation, events
from bridge_tasks.errors import BridgeError

_log = structlog.stdlib.get_logger("bridge_tasks")
_plain = logging.getLogger("bridge_tasks")

_QUIET = {"celery.app.trace": logging.WARNING, "celery.worker.strategy": logging.WARNING, "httpx": logging.WARNING}
"""What these say of each task at INFO, `JobFinished` says once, and without arguments and results."""

_told_failed: ContextVar[str | None] = ContextVar("bridge_told_failed", default=None)
"""The task whose failure was told last in this thread."""

_TRACEBACKS = ExceptionDictTransformer(show_locals=False)
"""Without local variables, which structlog shows by default, here and for eyes: they hold content."""

_LINES: dict[type[events.Event], tuple[int, str]] = {
    events.RetryScheduled: (logging.WARNING, "trying again"),
    events.CircuitChanged: (logging.WARNING, "circuit changed"),
    events.CircuitFollowed: (logging.INFO, "circuit follows"),
    events.ProcessSteppedAside: (logging.WARNING, "process steps aside"),
    events.QueuePaused: (logging.WARNING, "queue paused"),
    events.QueueResumed: (logging.WARNING, "queue resumed"),
    events.StoreLost: (logging.WARNING, "shared state is away"),
    events.StoreRegained: (logging.WARNING, "shared state is back"),
    events.WriteUncopied: (logging.DEBUG, "no replica has a write"),
    events.CopiesChanged: (logging.WARNING, "whether replicas have what is written"),
    events.AnswerDegraded: (logging.WARNING, "answer degraded"),
    events.CacheAnswered: (logging.DEBUG, "cache answered"),
    events.AnswerShared: (logging.DEBUG, "answer shared"),
    events.StaleAnswerServed: (logging.WARNING, "stale answer served"),
    events.CacheEntryDropped: (logging.WARNING, "cache entry dropped"),
    events.CacheVoided: (logging.INFO, "answers made void"),
    events.RetryRefused: (logging.WARNING, "retry refused by the budget"),
    events.CallHeldBack: (logging.INFO, "call held back"),
    events.CallDelayed: (logging.DEBUG, "call delayed"),
    events.PatienceAsked: (logging.WARNING, "service asked for patience"),
    events.PaceLowered: (logging.WARNING, "pace lowered"),
    events.ReplicaEjected: (logging.WARNING, "replica ejected"),
    events.ReplicasChanged: (logging.INFO, "replicas changed"),
    events.NameLookupFailed: (logging.WARNING, "name not found"),
    events.RequestHedged: (logging.DEBUG, "request hedged"),
    events.LedgerSilent: (logging.ERROR, "the ledger is out of reach"),
    events.OutcomeRecorded: (logging.DEBUG, "outcome recorded"),
    events.RunSpared: (logging.INFO, "not run again"),
    events.DeadLettersDropped: (logging.ERROR, "dead letters dropped"),
    events.MessagesRestored: (logging.WARNING, "a dead worker's jobs go to others"),
    events.MessageRequeued: (logging.WARNING, "lost message put back"),
    events.JobsExpired: (logging.ERROR, "jobs too old"),
    events.MessageDropped: (logging.ERROR, "message refused"),
}
"""Of most facts, a line says just what they hold."""


def configure(level: str | int = "INFO", *, json_lines: bool = False) -> None:
    """Send everything, ours and others', to standard error: one line of JSON, or one made for eyes."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.contextvars.merge_contextvars,
        _add_correlation_id,
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[Processor] = (
        [structlog.processors.ExceptionRenderer(_TRACEBACKS), structlog.processors.JSONRenderer()]
        if json_lines
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("celery.app.trace").addFilter(_is_news)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    events.subscribe(listen)


def listen(event: events.Event) -> None:
    """Write one line for one fact, at the level at which somebody should read it."""
    match event:
        case events.JobFinished(outcome="succeeded"):
            _log.info("job succeeded", **_job(event))
        case events.JobFinished(outcome="retried"):
            _log.warning("job put back", **_job(event))
        case events.JobFinished():
            _told_failed.set(event.task_id)
            _log.error("job failed", **_job(event), exc_info=_unforeseen())
        case events.RequestFinished():
            if not _plain.isEnabledFor(logging.DEBUG):
                return
            _log.debug(
                "request finished",
                service=event.service,
                operation=event.operation,
                host=event.host,
                status=event.status,
                error=event.error,
                milliseconds=_milliseconds(event.seconds),
            )
        case _:
            level, said = _LINES[type(event)]
            if _plain.isEnabledFor(level):  # structlog takes ten times as long to say no
                _log.log(level, said, **_held(event))


def _is_news(record: logging.LogRecord) -> bool:
    """Let pass what Celery says of a task's end, unless we have said it."""
    data = getattr(record, "data", None)
    return not (isinstance(data, dict) and data.get("id") == _told_failed.get() is not None)


def _unforeseen() -> BaseException | None:
    """The error at hand, if it is none of ours: where it came from is worth a traceback."""
    error = sys.exception()
    return None if isinstance(error, BridgeError) else error


def _job(event: events.JobFinished) -> dict[str, Any]:
    told = {
        "task": event.task,
        "task_id": event.task_id,
        "attempt": event.attempt,
        "milliseconds": _milliseconds(event.seconds),
        "subject": event.subject,
        "error": event.error,
    }
    return {key: value for key, value in told.items() if value is not None}


def _held(event: events.Event) -> dict[str, Any]:
    held = {name: getattr(event, name) for name in event.__slots__}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in held.items()}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _add_correlation_id(_: Any, __: str, line: EventDict) -> EventDict:
    cid = correlation.current()
    if cid is not None:
        line.setdefault("correlation_id", cid)
    return line
