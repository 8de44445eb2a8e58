"""Run every benchmark, draw the plots, and write the tables into docs/performance.md: `make bench`.

It measures nothing by itself. The text around the tables is people's; what stands between the two markers of a
benchmark is replaced. `--json` ends in one line with all figures.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import harness, plots
from benchmarks.harness import Figures

BENCHMARKS = (
    "call_overhead",
    "replicas",
    "processes",
    "rejection",
    "cache_hit",
    "store_away",
    "recovery",
    "submitting",
    "throughput",
    "observability",
)
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
DRAWN: dict[str, Callable[[Figures, Path], None]] = {
    "call_overhead": plots.call_overhead,
    "processes": plots.processes,
    "recovery": plots.recovery,
}
PEERS = ("httpx", "tenacity", "pybreaker", "interlock-cb", "cashews", "aiocache", "redis")


def figures_of(benchmark: str, options: list[str]) -> Figures:
    """Run one benchmark in a process of its own, and read the line it ends in."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--json", *options]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(run.stdout.splitlines()[-1])
    return figures


def written(page: str, benchmark: str, figures: Figures) -> str:
    """Return the page with the benchmark's table in its place."""
    begin, end = f"<!-- {benchmark} -->", f"<!-- end of {benchmark} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{harness.table(figures['rows'])}\n{end}", page)


def circumstances() -> Figures:
    """Say where the figures come from, as far as it matters."""
    peers = ", ".join(f"{name} {version(name)}" for name in PEERS)
    return {
        "rows": [
            {
                "on": f"{platform.system()}, CPython {platform.python_version()}, {os.cpu_count()} processors",
                "with": peers,
                "waiting for a processor": f"{os.getloadavg()[1]:.0f} (mean of five minutes)",
            }
        ]
    }


def main() -> None:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--into", type=Path, default=PAGE, help="the page whose tables are replaced")
    parser.add_argument("--json", action="store_true", help="end in one line of JSON")
    options = parser.parse_args()
    everything: dict[str, Any] = {}
    options.into.write_text(written(options.into.read_text(), "circumstances", circumstances()))
    for benchmark in options.benchmarks or BENCHMARKS:
        print(f"{benchmark} ...", file=sys.stderr, flush=True)
        figures = everything[benchmark] = figures_of(benchmark, [])
        options.into.write_text(written(options.into.read_text(), benchmark, figures))
        if benchmark in DRAWN:
            DRAWN[benchmark](figures, options.into.with_name(f"performance-{benchmark.replace('_', '-')}.png"))
        if not options.json:
            print(f"\n{harness.table(figures['rows'])}\n", flush=True)
    if options.json:
        print(json.dumps(everything))


if __name__ == "__main__":
    main()
