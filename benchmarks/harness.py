"""What the benchmarks share: interleaved rounds, counting on the side of Redis, a canned service, and the output.

It knows no peer and no question. Times are microseconds. It never judges: whether a figure is good is the reader's
to say.
"""

import argparse
import asyncio
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

Call = Callable[[], Any]
Row = dict[str, Any]
Figures = dict[str, Any]
"""What a benchmark found: `rows`, one for each line of its table, and whatever else it has to tell."""

OURS = ("cmdstat_info", "cmdstat_client", "cmdstat_hello")
"""Commands of the measuring itself."""


@dataclass(frozen=True, slots=True)
class InLoop:
    """Calls of an event loop: a round of them is one piece of its work, so that entering it costs nobody."""

    loop: asyncio.Runner
    ask: Callable[[], Awaitable[Any]]

    def __call__(self) -> Any:
        """Make one call."""
        return self.many(1)

    def many(self, calls: int) -> Any:
        """Make so many calls; return the last answer."""
        return self.loop.run(self._asked(calls))

    async def _asked(self, calls: int) -> Any:
        answer = None
        for _ in range(calls):
            answer = await self.ask()
        return answer


@contextmanager
def canned_services(count: int = 1) -> Iterator[list[str]]:
    """Run canned services, each in a process of its own; give their addresses."""
    with ExitStack() as stack:
        yield [stack.enter_context(_canned_service()) for _ in range(count)]


@contextmanager
def _canned_service() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.canned_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin  # noqa: S101 - for the type checker
        assert process.stdout  # noqa: S101 - for the type checker
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


def new_files(directory: Path, count: int) -> list[Path]:
    """Write files that nobody has seen: a page of text each."""
    folder = Path(tempfile.mkdtemp(dir=directory))
    paths = [folder / f"{number}.txt" for number in range(count)]
    for path in paths:
        path.write_text(f"{path}\n" + "A page of text, as people write it.\n" * 50)
    return paths


def interleaved(peers: Mapping[str, Call], rounds: int, calls: int) -> dict[str, "Times"]:
    """Return each peer's mean time of a call, round by round.

    All peers take part in each round, in an order that rotates: what slows the machine slows all of them. Many
    short rounds are better than few long ones.
    """
    for call in peers.values():  # connect, and warm up
        for _ in range(100):
            call()
    times = {name: Times() for name in peers}
    names = list(peers)
    for _ in range(rounds):
        for name in names:
            times[name].take(peers[name], calls)
        names.append(names.pop(0))
    return times


@dataclass(slots=True)
class Times:
    """A peer's rounds, in microseconds a call: by the clock on the wall, and of this process's processor."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def take(self, call: Call, calls: int) -> None:
        """Measure one round."""
        began, used = time.perf_counter(), time.process_time()
        if isinstance(call, InLoop):
            call.many(calls)
        else:
            for _ in range(calls):
                call()
        self.processor.append((time.process_time() - used) / calls * 1e6)
        self.wall.append((time.perf_counter() - began) / calls * 1e6)


def ratio(series: Sequence[float], to: Sequence[float]) -> float:
    """Return the median over rounds of how long one peer took against another one in the same round."""
    return round(statistics.median(one / other for one, other in zip(series, to, strict=True)), 3)


def median(series: Sequence[float]) -> float:
    """Return the median, in tenths."""
    return round(statistics.median(series), 1)


def percentile(series: Sequence[float], share: float) -> float:
    """Return the value that this share of the series does not exceed (nearest rank), in tenths."""
    return round(sorted(series)[max(math.ceil(share * len(series)) - 1, 0)], 1)


def redis_commands(url: str) -> int:
    """Return how many commands this Redis has run, also inside scripts, as it counts them itself."""
    with redis.Redis.from_url(url) as client:
        stats = client.info("commandstats")
    return sum(int(stat["calls"]) for name, stat in stats.items() if name not in OURS)


def commands_per_call(url: str, call: Call, calls: int) -> float:
    """Count what the server runs for so many calls."""
    before = redis_commands(url)
    for _ in range(calls):
        call()
    return round((redis_commands(url) - before) / calls, 3)


def run(doc: str, measure: Callable[..., Figures], **settings: int | str) -> None:
    """Be the command line of a benchmark: an option for each of `settings`, and `--json` to end in one line."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in settings.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"default: {default}")
    parser.add_argument("--json", action="store_true", help="end in one line of JSON")
    options = vars(parser.parse_args())
    as_json = options.pop("json")
    figures = measure(**options)
    print(json.dumps(figures) if as_json else table(figures["rows"]))


def table(rows: Sequence[Row]) -> str:
    """Lay rows out as Markdown, which eyes can read as well."""
    headings = list(rows[0])
    cells = [[_cell(row[heading]) for heading in headings] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    lines = [headings, [f"{'-' * (width - 1)}:" if place else "-" * width for place, width in enumerate(widths)]]
    padded = [
        [cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(pairs)]
        for pairs in (list(zip(line, widths, strict=True)) for line in [*lines, *cells])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
