"""The correlation id of the work at hand: one string from the orchestrator to the last HTTP request.

It lives in a context variable, so it holds for a thread, an asyncio task and a Celery pool slot alike. This
module must never make an id where none was asked for: only `ensure()` does, at the doors where work begins.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID, uuid4

from bridge_tasks.errors import InvalidRequest

CELERY_HEADER = "x-correlation-id"
"""The message header. `correlation_id` itself is Celery's: the worker overwrites it with the task id."""

HTTP_HEADER = "X-Correlation-ID"

# What is safe in an HTTP header, a log line, a Redis key and a shell, and wide enough for UUIDs, ULIDs and
# W3C trace ids. 128 characters is ours.
PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=/-]{0,127}")

_current: ContextVar[str | None] = ContextVar("bridge_correlation_id", default=None)


def current() -> str | None:
    """Return the id bound to this context, or None."""
    return _current.get()


def ensure() -> str:
    """Return the bound id, or a new UUID4 where none is bound (it is not bound by this call)."""
    return _current.get() or str(uuid4())


def parse(value: UUID | str) -> str:
    """Return `value` as text.

    Raises:
        InvalidRequest: it is not 1 to 128 of the characters that are safe in headers and logs.
    """
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, str) or not PATTERN.fullmatch(value):
        raise InvalidRequest(
            "correlation_id", "must be 1 to 128 letters, digits or ._:@+=/- and begin with a letter or digit"
        )
    return value


@contextmanager
def bound(value: UUID | str | None) -> Iterator[str | None]:
    """Bind `value` (None: leave what is bound) for the length of a `with` block."""
    if value is None:
        yield _current.get()
        return
    token = _current.set(parse(value))
    try:
        yield _current.get()
    finally:
        _current.reset(token)
