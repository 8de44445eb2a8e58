"""What does an answer from the cache cost? Ours, by the client's verb, against functions that others' caches wrap.

All keep the same answer of two kilobytes. `near` is held in the process, and so are cashews' and aiocache's memory
caches; the others ask Redis. Ours counts hits, names its answers by hashing the question, checks whether an answer
was made void or is stale, and lets one caller in the fleet ask anew: in one script, one round trip, whose own
commands are counted as well. A task uses it without an event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiocache
import orjson
import redis.asyncio
from aiocache.serializers import JsonSerializer
from cashews.wrapper import Cache as Cashews

from benchmarks import harness
from benchmarks.harness import Call, Figures, InLoop
from bridge_tasks.cache import RedisCache
from bridge_tasks.clients import AsyncOnexTreeClient
from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.resilience.policy.caching import CacheRules
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.sandbox.redis import private_redis

ANSWER = {
    "results": [{"node": f"src/module_{number}.py", "score": 0.5, "kind": "file"} for number in range(30)],
    "paths": [],
    "metadata": {"nodes_analyzed": 30},
}
QUERY = "who calls authenticate"
TTL = 3600
NEAR, FAR = CacheRules(near_ttl=60.0), CacheRules(near_entries=0, version="far")

Ask = Callable[[], Awaitable[Any]]


async def answering(scope: Any, receive: Any, send: Any) -> None:
    """Be the service, in this process: it is asked once."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": orjson.dumps({"status": "success", "data": ANSWER})})


def ours(rules: CacheRules, shared: SharedRedis) -> Ask:
    """Ask our client."""
    cache = RedisCache(shared, "bench", rules=rules)
    client = AsyncOnexTreeClient(None, app=answering, cache=cache, cache_ttl=TTL, cache_rules=rules)
    return lambda: client.query_knowledge(QUERY)


def in_a_task(rules: CacheRules, redis_url: str) -> Call:
    """Ask our client as a task does, of what was kept before."""
    shared = SharedRedis(BlockingRedis(redis.Redis.from_url(redis_url)))
    cache = RedisCache(shared, "bench", rules=rules)
    client = AsyncOnexTreeClient(
        "http://127.0.0.1:9", cache=cache, cache_ttl=TTL, cache_rules=rules, bottom=blocking_bottom()
    )
    return lambda: drive(client.query_knowledge(QUERY))


def with_cashews(url: str) -> Ask:
    """Wrap a function by cashews."""
    cache = Cashews()
    cache.setup(url)

    @cache(ttl=TTL, key="knowledge:{query}:{depth}")
    async def ask(query: str, depth: int = 3) -> Any:
        del query, depth
        return ANSWER

    return lambda: ask(QUERY)


def with_aiocache(cache: type, **options: Any) -> Ask:
    """Wrap a function by aiocache."""

    @aiocache.cached(ttl=TTL, cache=cache, serializer=JsonSerializer(), namespace="bench", **options)  # type: ignore[untyped-decorator]
    async def ask(query: str, depth: int = 3) -> Any:
        del query, depth
        return ANSWER

    return lambda: ask(QUERY)


def measure(rounds: int, calls: int) -> Figures:
    """Measure each cache in each round."""
    with private_redis() as server, asyncio.Runner() as loop:
        shared = SharedRedis(redis.asyncio.Redis.from_url(server.url))
        port = urlsplit(server.url).port
        known: dict[str, Call] = {
            "ours, near": InLoop(loop, ours(NEAR, shared)),
            "ours, Redis": InLoop(loop, ours(FAR, shared)),
            "cashews, memory": InLoop(loop, with_cashews("mem://")),
            "cashews, Redis": InLoop(loop, with_cashews(server.url)),
            "aiocache, memory": InLoop(loop, with_aiocache(aiocache.Cache.MEMORY)),
            "aiocache, Redis": InLoop(loop, with_aiocache(aiocache.Cache.REDIS, endpoint="127.0.0.1", port=port)),
        }
        for call in known.values():
            assert call() == ANSWER  # noqa: S101 - all keep the same
        known |= {
            "ours in a task, near": in_a_task(NEAR, server.url),
            "ours in a task, Redis": in_a_task(FAR, server.url),
        }
        times = harness.interleaved(known, rounds, calls)
        commands = {name: harness.commands_per_call(server.url, call, calls) for name, call in known.items()}
    return {
        "rows": [
            {
                "cache": name,
                "µs a hit": harness.median(took.wall),
                "processor µs": harness.median(took.processor),
                "Redis commands a hit": commands[name],
            }
            for name, took in times.items()
        ]
    }


if __name__ == "__main__":
    harness.run(__doc__, measure, rounds=60, calls=50)
