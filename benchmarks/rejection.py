"""What does a refusal cost while the circuit is open? Ours, and those of the breakers that one would use instead.

our breaker   `CircuitBreaker.admit` with the shared store: what stands before each try
our client    the whole verb: request built, retries and limits passed, refusal turned into the caller's error
pybreaker, interlock   their `call`, with their Redis storage
"""

from contextlib import suppress

import interlock
import pybreaker
import redis
from interlock.integrations.redis import RedisStorage

from benchmarks import harness, peers
from benchmarks.harness import Call, Figures
from bridge_tasks.driver import drive
from bridge_tasks.errors import CircuitBreakerError
from bridge_tasks.sandbox.redis import private_redis


def ours(redis_url: str) -> dict[str, Call]:
    """Open our circuit, and ask it."""
    runtime = peers.runtime(["http://127.0.0.1:9"], redis_url)
    drive(runtime.metadata.circuit_breaker.force_open(hold=True))

    def breaker() -> None:
        with suppress(CircuitBreakerError):
            drive(runtime.metadata.circuit_breaker.admit())

    def client() -> None:
        with suppress(CircuitBreakerError):
            drive(runtime.metadata.get_stamp(peers.HASH))

    return {"our breaker": breaker, "our client": client}


def theirs(redis_url: str) -> dict[str, Call]:
    """Open the others' circuits, and ask them."""
    client = redis.Redis.from_url(redis_url)
    first = pybreaker.CircuitBreaker(
        reset_timeout=3600, state_storage=pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client, "refusing")
    )
    first.open()
    second = interlock.CircuitBreaker(name="refusing", storage=RedisStorage(client))
    second.force_open()

    def with_pybreaker() -> None:
        with suppress(pybreaker.CircuitBreakerError):
            first.call(int)

    def with_interlock() -> None:
        with suppress(interlock.CircuitOpenError):
            second.call(int)

    return {"pybreaker": with_pybreaker, "interlock": with_interlock}


def measure(rounds: int, calls: int) -> Figures:
    """Measure each peer in each round."""
    with private_redis() as server:
        known = {**ours(server.url), **theirs(server.url)}
        times = harness.interleaved(known, rounds, calls)
        commands = {name: harness.commands_per_call(server.url, call, 10 * calls) for name, call in known.items()}
    return {
        "rows": [
            {
                "refused by": name,
                "µs a refusal": harness.median(took.wall),
                "quickest round": round(min(took.wall), 1),
                "Redis commands a refusal": commands[name],
            }
            for name, took in times.items()
        ]
    }


if __name__ == "__main__":
    harness.run(__doc__, measure, rounds=100, calls=100)
