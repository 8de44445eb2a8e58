"""Has a replica know what was written before anybody is told of it: commands, and a WAIT on their connection.

What a master answered and no replica has is gone when the master is. This module must never decide what is worth
waiting for; whoever writes knows.
"""

import threading
from collections.abc import Sequence
from typing import Any

import redis

from bridge_tasks import events

_BRIEF_MILLISECONDS = 20
"""For replicas that were away a moment ago: one that is back answers within that, and nobody waits longer."""


class NotCopied(redis.ConnectionError):
    """No replica has what was written, or too few."""


class Copies:
    """How many replicas must have it, and for how long that is waited for. Thread-safe.

    Args:
        wanted: how many.
        seconds: for them; a client's time-out must be longer.
        refuse: raise where there are too few, which is told otherwise.
    """

    def __init__(self, wanted: int, seconds: float, *, refuse: bool = False) -> None:
        self._wanted = wanted
        self._seconds = seconds
        self._refuse = refuse
        self._lock = threading.Lock()
        self._missed = False

    def run(self, client: redis.Redis, *arguments: Any) -> Any:
        """Run one command, and wait.

        Raises:
            NotCopied, redis.RedisError: nobody knows whether it will be there.
        """
        return self.run_all(client, [arguments])[0]

    def run_all(self, client: redis.Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands in one round trip, and wait once for all of them.

        Raises:
            NotCopied, redis.RedisError: as `run`; the first command's that failed.
        """
        brief = self._missed and not self._refuse
        milliseconds = _BRIEF_MILLISECONDS if brief else int(self._seconds * 1000)
        with client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py's own gap
            pipe.execute_command("WAIT", self._wanted, milliseconds)  # type: ignore[no-untyped-call] # the same
            answers = pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        self._heard(int(answers.pop()))
        return answers

    def _heard(self, had: int) -> None:
        missing = had < self._wanted
        with self._lock:
            changed, self._missed = self._missed != missing, missing
        if changed:
            events.emit(events.CopiesChanged(enough=not missing))
        if missing:
            events.emit(events.WriteUncopied(had, self._wanted))
            if self._refuse:
                raise NotCopied(f"{had} replicas have it, of {self._wanted} that are wanted")


class CopiedRedis:
    """A blocking client, in the shape of coroutines that never suspend, each of whose commands is waited for.

    Args:
        client: where they go.
        copies: what is waited for.
    """

    def __init__(self, client: redis.Redis, copies: Copies) -> None:
        self._client = client
        self._copies = copies

    async def execute_command(self, *arguments: Any) -> Any:
        """Run one command."""
        try:
            return self._copies.run(self._client, *arguments)
        except (redis.RedisError, OSError):
            raise  # redis-py has seen to the connection
        except BaseException:  # cut short between asking and hearing: see `driver.BlockingRedis`
            self._client.connection_pool.disconnect(inuse_connections=False)
            raise
