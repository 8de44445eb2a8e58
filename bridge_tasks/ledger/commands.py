"""Commands and scripts on the Redis of the ledger. Its errors come out as they are."""

from collections.abc import Iterable, Sequence
from typing import Any

import redis

from bridge_tasks.resilience.state.shared_redis import RedisCommands, Script


async def run(client: RedisCommands, script: Script, names: Sequence[str], arguments: Iterable[Any]) -> Any:
    """Run a script by its digest; one round trip, two where Redis does not know it yet."""
    tail = (len(names), *names, *arguments)
    try:
        return await client.execute_command("EVALSHA", script.digest, *tail)
    except redis.exceptions.NoScriptError:
        return await client.execute_command("EVAL", script.source, *tail)


def text(value: Any) -> str:
    """Read what Redis answers as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
