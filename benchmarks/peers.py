"""What a guarded call costs: `runtime.run(client.create_stamp(...))` against plain peers, in the same run.

    bare                 httpx.Client.post of the same JSON, raise_for_status, .json(): no protection at all
    tenacity+pybreaker   the same in tenacity and pybreaker with its Redis storage: what one would build
    guarded              ours: deadline, retry, circuit breaker, correlation id, events, error translation

Rounds are interleaved (order rotated), the medians of a round's mean are compared. `--json` prints one line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pybreaker
import redis
import tenacity

from bridge_tasks import correlation
from bridge_tasks.runtime import Runtime
from bridge_tasks.sandbox.redis import private_redis
from bridge_tasks.settings import Settings

HASH = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
STAMP_DATA = {"context": "authentication", "intelligence": {"analysis_type": "security_analysis", "score": "0.9"}}
PAYLOAD = {
    "file_hash": HASH,
    "file_path": "/srv/docs/readme.md",
    "file_size": 5,
    "content_type": "text/plain",
    "stamp_data": STAMP_DATA,
    "namespace": "omninode.services.metadata",
}
Call = Callable[[], Any]


@contextmanager
def canned_server() -> Iterator[str]:
    """Run the canned server in a process of its own."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("canned_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin  # noqa: S101 - for the type checker
        assert process.stdout  # noqa: S101 - for the type checker
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


def bare(url: str) -> Call:
    """Make the unprotected call."""
    client = httpx.Client()

    def call() -> Any:
        response = client.post(f"{url}/stamp", json=PAYLOAD)
        response.raise_for_status()
        return response.json()["data"]

    return call


def hand_made(url: str, redis_url: str) -> Call:
    """Make the call that one would protect with the usual libraries."""
    unprotected = bare(url)
    storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, redis.Redis.from_url(redis_url), "bench")
    breaker = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=60, state_storage=storage)
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_exponential_jitter(multiplier=0.5, max=10),
        retry=tenacity.retry_if_exception_type(httpx.TransportError),
        reraise=True,
    )
    return lambda: retrying(breaker.call, unprotected)


def guarded(url: str, redis_url: str) -> Call:
    """Make our call."""
    runtime = Runtime(Settings.model_validate({"redis_url": redis_url, "metadata": {"urls": url}}))

    def call() -> Any:
        with correlation.bound("bench-1"):
            return runtime.run(
                runtime.metadata.create_stamp(HASH, "/srv/docs/readme.md", 5, STAMP_DATA, "text/plain")
            )

    return call


def measure(peers: dict[str, Call], rounds: int, calls: int) -> dict[str, float]:
    """Return each peer's microseconds per call: the median over rounds of a round's mean."""
    means: dict[str, list[float]] = {name: [] for name in peers}
    names = list(peers)
    for _ in range(rounds):
        for name in names:
            call = peers[name]
            began = time.perf_counter()
            for _ in range(calls):
                call()
            means[name].append((time.perf_counter() - began) / calls * 1e6)
        names.append(names.pop(0))
    return {name: statistics.median(series) for name, series in means.items()}


def redis_commands(url: str, call: Call, calls: int = 100) -> float:
    """Count, on the server's side, the Redis commands that one call causes."""
    client = redis.Redis.from_url(url)

    def processed() -> int:
        stats = client.info("commandstats")
        return sum(stat["calls"] for name, stat in stats.items() if name not in ("cmdstat_info", "cmdstat_client"))

    before = processed()
    for _ in range(calls):
        call()
    return (processed() - before) / calls


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=300, help="calls of each peer in a round")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    os.environ.pop("BRIDGE_REDIS_URL", None)
    with private_redis() as server, canned_server() as url:
        peers = {
            "bare": bare(url),
            "tenacity+pybreaker": hand_made(url, server.url),
            "guarded": guarded(url, server.url),
        }
        for call in peers.values():  # connect, and warm up
            for _ in range(100):
                call()
        micros = measure(peers, options.rounds, options.calls)
        commands = {name: redis_commands(server.url, call) for name, call in peers.items()}
    ratios = {name: round(micros[name] / micros["bare"], 3) for name in peers}
    if options.json:
        print(
            json.dumps(
                {
                    "ratio_guarded_to_bare": ratios["guarded"],
                    "redis_commands_per_call": commands["guarded"],
                    "peers": {
                        name: {
                            "microseconds": round(micros[name], 1),
                            "ratio": ratios[name],
                            "redis_commands_per_call": commands[name],
                        }
                        for name in peers
                    },
                }
            )
        )
        return
    print(f"{'':20} {'µs a call':>10} {'to bare':>9} {'Redis commands':>15}")
    for name in peers:
        print(f"{name:20} {micros[name]:10.1f} {ratios[name]:9.3f} {commands[name]:15.2f}")


if __name__ == "__main__":
    main()
