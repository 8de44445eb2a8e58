"""Who works: the name of this worker, and its signs of life.

The name is in the environment, so that the processes that a worker starts have it too.
"""

import os
from uuid import uuid4

from bridge_tasks.ledger import keys
from bridge_tasks.resilience.state.shared_redis import RedisCommands

_VARIABLE = "BRIDGE_WORKER_NAME"


def name_worker(node: str) -> str:
    """Give this process, and those that it starts, a name that no worker had before."""
    os.environ[_VARIABLE] = f"{node}:{uuid4().hex[:12]}"
    return os.environ[_VARIABLE]


def this_worker() -> str:
    """Return the name; outside a worker, one that has no signs of life."""
    return os.environ.get(_VARIABLE, "nobody")


class Workers:
    """The workers that are known, and whether they live.

    Args:
        client: where they are noted.
        dead_after: seconds without a sign of life.
    """

    def __init__(self, client: RedisCommands, dead_after: float) -> None:
        self._client = client
        self._milliseconds = int(dead_after * 1000)

    async def beat(self, name: str) -> None:
        """Give a sign of life."""
        await self._client.execute_command("SET", keys.WORKER + name, "1", "PX", self._milliseconds)
        await self._client.execute_command("SADD", keys.WORKERS, name)

    async def leave(self, name: str) -> None:
        """Say that a worker ends; what it held is nobody's."""
        await self._client.execute_command("DEL", keys.WORKER + name)

    async def known(self) -> list[str]:
        """Return all workers that there were and whose messages were not given back yet."""
        found = await self._client.execute_command("SMEMBERS", keys.WORKERS)
        return sorted(one.decode() if isinstance(one, bytes) else one for one in found)

    async def lives(self, name: str) -> bool:
        """Say whether there was a sign of life."""
        return bool(await self._client.execute_command("EXISTS", keys.WORKER + name))

    async def forget(self, name: str) -> None:
        """Drop a worker that holds nothing any more."""
        await self._client.execute_command("SREM", keys.WORKERS, name)
