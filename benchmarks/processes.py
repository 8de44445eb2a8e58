"""What does a guarded call cost while 1, 2, 4 and 8 processes share the circuit, the limits and one machine?

Each process makes guarded and bare calls in turn, all processes at the same time. A ratio is the median, over
rounds and processes, of that within one round of one process. Where processors are fewer, all wait for their turn.
"""

import json
import subprocess
import sys
from itertools import chain
from typing import Any

from benchmarks import harness, peers
from benchmarks.harness import Figures, Row
from bridge_tasks.sandbox.redis import private_redis

WARM_UP = 201
"""Guarded calls of each process that are not measured, but counted by Redis."""


def member(url: str, redis_url: str, rounds: int, calls: int) -> None:
    """Be one of the processes: get ready, wait for the word, measure, tell."""
    known = {"bare": peers.bare(url), "guarded": peers.guarded([url], redis_url)}
    harness.interleaved(known, 1, 1)
    print("ready", flush=True)
    sys.stdin.readline()
    times = harness.interleaved(known, rounds, calls)
    print(json.dumps({name: [took.wall, took.processor] for name, took in times.items()}), flush=True)


def together(count: int, url: str, redis_url: str, rounds: int, calls: int) -> list[dict[str, Any]]:
    """Run so many processes at the same time; return what each told."""
    arguments = [url, redis_url, str(rounds), str(calls)]
    members = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.processes", "member", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    try:
        for process in members:
            assert process.stdout  # noqa: S101 - for the type checker
            process.stdout.readline()
        for process in members:
            assert process.stdin  # noqa: S101 - for the type checker
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.communicate()[0]) for process in members]
    finally:
        for process in members:
            process.kill()
            process.wait()


def row(count: int, told: list[dict[str, Any]], commands: int, rounds: int, calls: int) -> Row:
    """Sum up what so many processes told."""

    def all_rounds(name: str, clock: int) -> list[float]:
        return list(chain.from_iterable(one[name][clock] for one in told))

    wall, processor = ({name: all_rounds(name, clock) for name in ("bare", "guarded")} for clock in (0, 1))
    return {
        "processes": count,
        "bare µs": harness.median(wall["bare"]),
        "guarded µs": harness.median(wall["guarded"]),
        "to bare": harness.ratio(wall["guarded"], wall["bare"]),
        "processor to bare": harness.ratio(processor["guarded"], processor["bare"]),
        "Redis commands a call": round(commands / (count * (rounds * calls + WARM_UP)), 3),
    }


def measure(rounds: int, calls: int, counts: str = "1,2,4,8") -> Figures:
    """Measure each number of processes by itself."""
    rows = []
    with private_redis() as server, harness.canned_services(1) as (url,):
        for count in map(int, counts.split(",")):
            before = harness.redis_commands(server.url)
            told = together(count, url, server.url, rounds, calls)
            rows.append(row(count, told, harness.redis_commands(server.url) - before, rounds, calls))
    return {"rows": rows}


if __name__ == "__main__":
    if sys.argv[1:2] == ["member"]:
        member(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        harness.run(__doc__, measure, rounds=25, calls=30, counts="1,2,4,8")
