"""The door between sync and async: a coroutine whose bottom blocks never suspends, and is run by one `send`.

No event loop, no thread: what looks asynchronous above is a plain call below. It must never be given a coroutine
that waits for something.
"""

from collections.abc import Coroutine
from types import CodeType
from typing import Any, TypeVar

import redis

T = TypeVar("T")


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, and return its result.

    Raises:
        RuntimeError: it suspended, which is a bug; the message says where.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return] # StopIteration.value is untyped
    where = _innermost(coroutine)
    coroutine.close()
    raise RuntimeError(f"a coroutine suspended on the blocking bottom, at {where}")


def _innermost(coroutine: Any) -> str:
    """Follow what awaits what, down to the frame that suspended."""
    code: CodeType | None = None
    line = None
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            code, line = frame.f_code, frame.f_lineno
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return f"{code.co_filename}:{line} in {code.co_qualname}" if code else "an unknown place"


class BlockingRedis:
    """redis-py's client in the shape of coroutines that never suspend."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def execute_command(self, *arguments: Any) -> Any:
        """Run one command."""
        try:
            return self._client.execute_command(*arguments)  # type: ignore[no-untyped-call] # redis-py's own gap
        except (redis.RedisError, OSError):
            raise  # redis-py has seen to the connection
        except BaseException:
            # Cut short from outside (a task's time limit, Ctrl-C) between asking and hearing: the connection is
            # back in the pool, and its reply, when it comes, would be taken for the next command's.
            self._client.connection_pool.disconnect(inuse_connections=False)
            raise
