"""What do several replicas cost? The same guarded call with 1, 2 and 4 of them, and the choice by itself.

`the choice µs` is `BalancingTransport` alone, over a transport that answers at once. The rest is the whole call,
with services that are processes of their own; `bare in turn` calls the same ones without any guard, each by a
client of its own.
"""

import time

import httpx

from benchmarks import harness, peers
from benchmarks.harness import Call, Figures
from bridge_tasks.driver import drive
from bridge_tasks.resilience.policy.balancing import BalancingConfig
from bridge_tasks.resilience.transport.balancing import MET, TURNED, BalancingTransport
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.resolving import Targets
from bridge_tasks.sandbox.redis import private_redis

COUNTS = (1, 2, 4)


class _Answering(httpx.AsyncBaseTransport):
    """Answers at once."""

    _answer = httpx.Response(200)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the same answer each time."""
        del request
        return self._answer


def choice(replicas: int) -> Call:
    """Make one choice among so many replicas, nothing else."""
    inner = _Answering()
    targets = Targets(
        [httpx.URL(f"http://127.0.0.1:{8001 + number}") for number in range(replicas)],
        look_up=None,
        ttl=0,
        clock=time.monotonic,
    )
    balancing = BalancingTransport(inner, targets=targets, config=BalancingConfig(), bottom=blocking_bottom())
    request = httpx.Request("POST", "http://127.0.0.1:8001/stamp")

    def call() -> None:
        for known in (MET, TURNED):  # each call is a new request
            request.extensions.pop(known, None)
        drive(balancing.handle_async_request(request))

    return call


def measure(rounds: int, calls: int) -> Figures:
    """Measure each number of replicas in each round."""
    with private_redis() as server, harness.canned_services(max(COUNTS)) as urls:
        whole = {str(count): peers.guarded(urls[:count], server.url) for count in COUNTS}
        bare = {f"bare {count}": peers.bare_in_turn(urls[:count]) for count in COUNTS}
        times = harness.interleaved({**whole, **bare}, rounds, calls)
        alone = harness.interleaved({str(count): choice(count) for count in COUNTS}, rounds, calls)
    nothing = alone["1"].wall
    return {
        "rows": [
            {
                "replicas": count,
                "µs a call": harness.median(times[str(count)].wall),
                "to one": harness.ratio(times[str(count)].wall, times["1"].wall),
                "processor µs": harness.median(times[str(count)].processor),
                "processor to one": harness.ratio(times[str(count)].processor, times["1"].processor),
                "bare in turn, processor to one": harness.ratio(
                    times[f"bare {count}"].processor, times["bare 1"].processor
                ),
                "the choice µs": round(harness.median(alone[str(count)].wall) - harness.median(nothing), 1),
            }
            for count in COUNTS
        ]
    }


if __name__ == "__main__":
    harness.run(__doc__, measure, rounds=150, calls=30)
