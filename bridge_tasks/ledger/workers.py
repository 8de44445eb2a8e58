"""Who works: the name of this worker, its signs of life, and who is taken for dead.

A sign is a count that goes up; that it stood still, look after look, is the only evidence of a death. Keys that
expire would be none: after an outage of Redis, they would all be gone, and everybody dead.
"""

import os
from collections.abc import Mapping, Sequence
from uuid import uuid4

from bridge_tasks.ledger import keys
from bridge_tasks.resilience.state.shared_redis import RedisCommands

_VARIABLE = "BRIDGE_WORKER_NAME"
NOBODY = "nobody"
"""The name outside of workers."""
_FORGOTTEN_SECONDS = 86_400
"""What nobody looks after does not stay for ever."""

Watched = Mapping[str, tuple[str, int]]
"""By worker: its last sign, and for how many looks that stood still."""


def name_worker(node: str) -> str:
    """Give this process, and those that it starts, a name that no worker had before."""
    os.environ[_VARIABLE] = f"{node}:{uuid4().hex[:12]}"
    return os.environ[_VARIABLE]


def this_worker() -> str:
    """Return the name; outside a worker, one that has no signs of life."""
    return os.environ.get(_VARIABLE, NOBODY)


def silent(signs: Mapping[str, str | None], watched: Watched, looks: int) -> tuple[list[str], Watched]:
    """Return who is dead, and what to go by the next time. Pure.

    Args:
        signs: each worker's sign now; None of one that has left.
        watched: what this returned the last time; empty when nobody has watched without a gap.
        looks: for how many looks a sign may stand still.
    """
    dead: list[str] = []
    still: dict[str, tuple[str, int]] = {}
    for name, sign in signs.items():
        before, count = watched.get(name, (None, 0))
        count = count + 1 if sign == before else 0
        if sign is None or count >= looks:
            dead.append(name)
        else:
            still[name] = (sign, count)
    return dead, still


class Workers:
    """The workers that are known, and their signs of life.

    Args:
        client: where they are noted.
    """

    def __init__(self, client: RedisCommands) -> None:
        self._client = client
        self._beats = 0

    async def beat(self, name: str) -> None:
        """Give a sign of life."""
        self._beats += 1
        await self._client.execute_command("SET", keys.WORKER + name, self._beats, "EX", _FORGOTTEN_SECONDS)
        await self._client.execute_command("SADD", keys.WORKERS, name)

    async def leave(self, name: str) -> None:
        """Say that a worker ends; what it held is nobody's."""
        await self._client.execute_command("DEL", keys.WORKER + name)

    async def known(self) -> list[str]:
        """Return all workers that there were and whose messages were not given back yet."""
        found = await self._client.execute_command("SMEMBERS", keys.WORKERS)
        return sorted(_text(one) for one in found)

    async def signs(self, names: Sequence[str]) -> dict[str, str | None]:
        """Return the last sign of each; None of one that gave none, or has left."""
        if not names:
            return {}
        found = await self._client.execute_command("MGET", *(keys.WORKER + name for name in names))
        return {name: None if sign is None else _text(sign) for name, sign in zip(names, found, strict=True)}

    async def bury(self, name: str) -> None:
        """Take a worker for dead: whoever claims what it ran may have it."""
        await self._client.execute_command("DEL", keys.WORKER + name)

    async def forget(self, name: str) -> None:
        """Drop a worker that holds nothing any more."""
        await self._client.execute_command("SREM", keys.WORKERS, name)
        await self._client.execute_command("HDEL", keys.METRICS, name)
        await self._client.execute_command("DEL", keys.SESSION + name)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
