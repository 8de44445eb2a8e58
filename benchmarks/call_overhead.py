"""What does a guarded call cost? `runtime.run(client.create_stamp(...))` against plain peers, in the same run.

bare                 httpx.Client.post of the same JSON, raise_for_status, .json(): no protection at all
tenacity+pybreaker   the same in tenacity and pybreaker with its Redis storage: what one would build
tenacity+interlock   the same in tenacity and interlock-cb with its Redis storage
guarded              ours, everything on: deadline, retry and its budget, circuit breaker and rate limit shared in
                     Redis, concurrency limit, correlation id, events heard by a log and by counters
bare, 3 in turn      bare, calling three services one after the other: what the next one is to be held against
guarded, 3 replicas  guarded, balanced over three services

Rounds are interleaved, the order rotates. A ratio is the median over rounds of the ratio within one round; Redis
commands are counted by the server, also those inside scripts; processor time is this process's own.
"""

from benchmarks import harness, peers
from benchmarks.harness import Figures
from bridge_tasks.sandbox.redis import private_redis


def measure(rounds: int, calls: int) -> Figures:
    """Measure each peer in each round."""
    with private_redis() as server, harness.canned_services(3) as urls:
        known = {
            "bare": peers.bare(urls[0]),
            "tenacity+pybreaker": peers.with_pybreaker(urls[0], server.url),
            "tenacity+interlock": peers.with_interlock(urls[0], server.url),
            "guarded": peers.guarded(urls[:1], server.url),
            "bare, 3 in turn": peers.bare_in_turn(urls),
            "guarded, 3 replicas": peers.guarded(urls, server.url),
        }
        times = harness.interleaved(known, rounds, calls)
        commands = {name: harness.commands_per_call(server.url, call, 10 * calls) for name, call in known.items()}
    bare = times["bare"]
    return {
        "ratio_guarded_to_bare": harness.ratio(times["guarded"].wall, bare.wall),
        "ratio_balanced_to_bare_in_turn": harness.ratio(
            times["guarded, 3 replicas"].wall, times["bare, 3 in turn"].wall
        ),
        "redis_commands_per_call": commands["guarded"],
        "rows": [
            {
                "peer": name,
                "µs a call": harness.median(took.wall),
                "to bare": harness.ratio(took.wall, bare.wall),
                "processor µs": harness.median(took.processor),
                "processor to bare": harness.ratio(took.processor, bare.processor),
                "Redis commands a call": commands[name],
            }
            for name, took in times.items()
        ],
    }


if __name__ == "__main__":
    harness.run(__doc__, measure, rounds=150, calls=30)
