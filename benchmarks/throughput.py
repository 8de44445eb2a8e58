"""How many files a second? Ours, with every job on record, against a plain Celery chain of bare httpx tasks.

The same Redis, services and number of worker processes; in turn, round by round, with new files for each. Services
answer at once, or after 10 or 50 ms. What is told of ours is how many times the plain chain's rate it is.

our chain     `workflows.stamp_file`: three messages a file
stamp_file    `workflows.stamp_file_job`: one message; with `hashing="local"`, one call less
bulk          `workflows.stamp_files`: chunks of files; hashed by the service, one call a file, or by the worker
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks import harness
from benchmarks.harness import Figures
from bridge_tasks.cli.local_stack import Plan, local_stack

CONTEXT = "throughput"
PATIENCE = 600.0

Way = Callable[[Sequence[Path]], None]
"""Does the job for files, and returns when all are stamped."""


def measure(rounds: int, files: int, bulk: int, latencies: str = "0,10,50", workers: str = "1,2") -> Figures:
    """Measure all ways at each latency and number of workers."""
    rows = []
    for count in map(int, workers.split(",")):
        with (
            tempfile.TemporaryDirectory(prefix="bridge-bench-") as directory,
            _stack(Path(directory), count) as urls,
        ):
            for latency in map(int, latencies.split(",")):
                _delay(urls, latency / 1000)
                # In a process of its own, which reads from its environment where this stack is.
                with multiprocessing.get_context("spawn").Pool(1) as own:
                    measured = own.apply(_ratios, (Path(directory), rounds, files, bulk))
                rows.append({"workers": count, "latency ms": latency, **measured})
    return {"rows": rows}


def _ratios(directory: Path, rounds: int, files: int, bulk: int) -> harness.Row:
    ways = _ways()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, (way, many) in ways.items():
            made = harness.new_files(directory, bulk if many else files)
            began = time.perf_counter()
            way(made)
            rates[name].append(len(made) / (time.perf_counter() - began))
    counted = {name: some[1:] for name, some in rates.items()}  # the first round warms up
    plain = counted["plain chain"]
    row: harness.Row = {"plain chain, files a second": round(statistics.median(plain), 1)}
    for name, some in counted.items():
        if name != "plain chain":
            row[name] = round(statistics.median(a / b for a, b in zip(some, plain, strict=True)), 2)
    return row


def _ways() -> dict[str, tuple[Way, bool]]:
    """The ways to do it, and whether each takes the larger number of files."""
    # Imported when the environment says where everything is.
    from benchmarks import plain_celery  # noqa: PLC0415
    from bridge_tasks import Bridge, workflows  # noqa: PLC0415

    bridge = Bridge()

    def plain(paths: Sequence[Path]) -> None:
        for result in [plain_celery.stamp_file(str(path), CONTEXT).apply_async() for path in paths]:
            result.get(timeout=PATIENCE)

    def chain(paths: Sequence[Path]) -> None:
        _all(bridge, bridge.submit_all(workflows.stamp_file(path, context=CONTEXT) for path in paths))

    def one_message(hashing: Any) -> Way:
        def run(paths: Sequence[Path]) -> None:
            jobs = (workflows.stamp_file_job(path, context=CONTEXT, hashing=hashing) for path in paths)
            _all(bridge, bridge.submit_all(jobs))

        return run

    def bulk(hashing: Any) -> Way:
        def run(paths: Sequence[Path]) -> None:
            ended = bridge.submit(workflows.stamp_files(paths, context=CONTEXT, hashing=hashing)).wait(PATIENCE)
            assert ended.state == "succeeded", ended  # noqa: S101 - a wrong figure is worse than none

        return run

    return {
        "plain chain": (plain, False),
        "our chain": (chain, False),
        "stamp_file": (one_message("service"), False),
        "stamp_file, hashed here": (one_message("local"), False),
        "bulk": (bulk("service"), True),
        "bulk, hashed here": (bulk("local"), True),
    }


def _all(bridge: Any, jobs: list[Any]) -> None:
    for ended in bridge.as_completed(jobs, PATIENCE):
        assert ended.error is None, ended  # noqa: S101 - the same


@contextmanager
def _stack(directory: Path, workers: int) -> Iterator[list[str]]:
    """Run Redis, both services, our worker and the plain one; give the services' addresses."""
    plan = Plan(directory, concurrency=workers, log_level="ERROR")
    with local_stack(plan, {**os.environ, "BRIDGE_ONEXTREE__CACHE": "true"}) as stack:
        os.environ.update(stack.variables)
        plain = {
            "PLAIN_REDIS_URL": f"{stack.redis_url.rpartition('/')[0]}/1",
            "PLAIN_METADATA": stack.metadata_url,
            "PLAIN_ONEXTREE": stack.onextree_url,
        }
        os.environ.update(plain)
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.plain_celery", "worker", "-l", "ERROR"]
        with subprocess.Popen(
            [*command, "-c", str(workers)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as worker:
            try:
                yield [stack.metadata_url, stack.onextree_url]
            finally:
                worker.terminate()


def _delay(urls: Sequence[str], seconds: float) -> None:
    """Have both services answer later."""
    for url in urls:
        httpx.delete(f"{url}/_sandbox/faults").raise_for_status()
        if seconds:
            httpx.post(f"{url}/_sandbox/faults", json=[{"kind": "latency", "seconds": seconds}]).raise_for_status()


if __name__ == "__main__":
    harness.run(__doc__ or "", measure, rounds=3, files=100, bulk=1000, latencies="0,10,50", workers="1,2")
