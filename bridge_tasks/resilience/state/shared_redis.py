"""Redis as the place of shared state: quick to answer, quick to fail, and free while it is away.

Shared state is help, never a condition: whoever uses this has a local way to go on. So an error is one type
(`StoreUnavailable`), no command waits longer than the client's own small time-outs, and after a failure nothing is
tried for a moment that doubles up to a few seconds. This module must never let a Redis error out.
"""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Protocol

import redis

from bridge_tasks import events
from bridge_tasks.errors import BridgeError

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
"""Seconds without a try after the first failure, and at most (resilience.md 4.6)."""


class StoreUnavailable(BridgeError):  # noqa: N818 - a state, told like ServiceUnavailable
    """Shared state cannot be asked now: go on without it."""


class RedisCommands(Protocol):
    """The one method that is needed of a Redis client; on the blocking bottom it never suspends."""

    async def execute_command(self, *arguments: Any) -> Any:
        """Run one command."""
        ...


class Script:
    """A Lua script from a package's `lua` folder, run by its digest and loaded where Redis does not know it.

    Args:
        name: the file, without `.lua`.
        package: whose folder it is in.
        before: files whose functions it uses.
    """

    def __init__(self, name: str, package: str = __package__, *before: str) -> None:
        self.name = name
        folder = resources.files(package).joinpath("lua")
        self.source = "".join(folder.joinpath(f"{part}.lua").read_text() for part in (*before, name))
        self.digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class SharedRedis:
    """Commands and scripts on the Redis that all processes share. Thread-safe.

    Args:
        client: a client that does not retry and has time-outs well below a second.
        clock: seconds, monotonic.
        chance: a number drawn from [0, 1).
    """

    def __init__(
        self,
        client: RedisCommands,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._failures = 0
        self._silent_until = 0.0

    @property
    def available(self) -> bool:
        """Whether the next command would be tried; costs one look at the clock."""
        return not self._failures or self._clock() >= self._silent_until

    async def command(self, *arguments: Any) -> Any:
        """Run one command.

        Raises:
            StoreUnavailable: Redis is away, or was a moment ago; then it was not asked.
        """
        return await self._guarded(arguments)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script: one round trip, or two where Redis has forgotten it.

        Raises:
            StoreUnavailable: as `command`.
        """
        tail = (len(keys), *keys, *arguments)
        return await self._guarded(("EVALSHA", script.digest, *tail), ("EVAL", script.source, *tail))

    async def _guarded(self, arguments: Sequence[Any], unknown_script: Sequence[Any] | None = None) -> Any:
        if not self._may_try():
            raise StoreUnavailable("shared state is away")
        try:
            try:
                answer = await self._client.execute_command(*arguments)
            except redis.exceptions.NoScriptError:
                if unknown_script is None:
                    raise
                answer = await self._client.execute_command(*unknown_script)
        except (redis.exceptions.RedisError, OSError) as error:
            self._lost(error)
            raise StoreUnavailable("shared state is away") from error
        if self._failures:
            self._regained()
        return answer

    def _may_try(self) -> bool:
        """Let everybody try while all is well; after a failure one at a time, so that one waits and not all."""
        if not self._failures:
            return True
        with self._lock:
            now = self._clock()
            if self._failures and now < self._silent_until:
                return False
            self._silent_until = now + FIRST_PAUSE
            return True

    def _lost(self, error: Exception) -> None:
        with self._lock:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 16))
            self._silent_until = self._clock() + pause * (0.75 + self._chance() / 2)
            self._failures += 1
            first = self._failures == 1
        if first:
            events.emit(events.StoreLost(type(error).__name__))

    def _regained(self) -> None:
        with self._lock:
            back, self._failures = self._failures, 0
        if back:
            events.emit(events.StoreRegained(back))
