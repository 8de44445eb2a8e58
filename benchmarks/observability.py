"""What does it cost to be watched? Jobs a second with metrics, with traces, and with both, to none of it.

The same Redis, services and number of worker processes; in turn, round by round, with new files for each. Traces
are exported to a collector on this machine, of the share of jobs that is the default, or of all; metrics are
scraped every fifteen seconds. All write their logs as JSON.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import httpx
import redis

from benchmarks import harness
from benchmarks.harness import Figures
from bridge_tasks.cli.local_stack import Plan, local_stack
from bridge_tasks.ledger import keys

PATIENCE = 600.0
SCRAPE_SECONDS = 15.0
METRICS = {"BRIDGE_METRICS__PORT": "0"}
TRACES = {"BRIDGE_TRACING__ENABLED": "true"}
EVERY_JOB = {"BRIDGE_TRACING__SHARE": "1"}
WAYS: dict[str, dict[str, str]] = {
    "off": {},
    "metrics": METRICS,
    "traces": TRACES,
    "all on": METRICS | TRACES,
    "all on, every job traced": METRICS | TRACES | EVERY_JOB,
}


@dataclass(frozen=True, slots=True)
class Watched:
    """A worker that is watched in some way, and the orchestrator that gives it jobs."""

    worker: int
    orchestrator: Pool
    rates: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def round(self, directory: Path, files: int) -> None:
        """Have new files stamped, and note how long it took."""
        paths = harness.new_files(directory, files)
        used, began = _processor_seconds(self.worker), time.perf_counter()
        self.orchestrator.apply(_stamp, (paths,))
        took = time.perf_counter() - began
        self.rates.append(files / took)
        self.processor.append((_processor_seconds(self.worker) - used) / files * 1000)


def measure(rounds: int, files: int, workers: int) -> Figures:
    """Measure all ways."""
    with (
        tempfile.TemporaryDirectory(prefix="bridge-bench-") as name,
        ExitStack() as running,
        harness.canned_services(1) as (collector,),
    ):
        directory = Path(name)
        plan = Plan(directory, concurrency=1, log_level="WARNING")  # its worker idles in a database of its own
        stack = running.enter_context(local_stack(plan, os.environ))
        ways = {}
        for number, (way, extra) in enumerate(WAYS.items(), start=1):
            url = f"{stack.redis_url.rpartition('/')[0]}/{number}"
            urls = dict.fromkeys(("BRIDGE_REDIS_URL", "BRIDGE_BROKER_URL", "BRIDGE_RESULT_BACKEND_URL"), url)
            more = {"BRIDGE_LOG__JSON_LINES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector}
            environment = {**os.environ, **stack.variables, **urls, **more, **extra}
            worker = running.enter_context(_worker(environment, workers, directory / f"{number}.log"))
            running.enter_context(_scraped(url))
            orchestrator = running.enter_context(get_context("spawn").Pool(1, _settle, (environment,)))
            ways[way] = Watched(worker, orchestrator)
        order = list(ways)
        for _ in range(rounds + 1):
            for way in order:
                ways[way].round(directory, files)
            order.append(order.pop(0))
    rows = [_row(way, watched, ways["off"]) for way, watched in ways.items()]
    return {"rows": rows}


def _row(way: str, watched: Watched, off: Watched) -> harness.Row:
    rates, before = watched.rates[1:], off.rates[1:]  # the first round warms up
    return {
        "watched": way,
        "jobs/s": harness.median(rates),
        "to off": harness.ratio(rates, before),
        "worker's processor, ms a job": round(harness.median(watched.processor[1:]), 2),
        "processor to off": harness.ratio(watched.processor[1:], off.processor[1:]),
    }


def _settle(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)


def _stamp(paths: Sequence[Path]) -> None:
    """Submit a job for each file, and wait for all."""
    from bridge_tasks import Bridge, workflows  # noqa: PLC0415 - when the environment says where everything is

    bridge = Bridge()
    jobs = bridge.submit_all(workflows.stamp_file_job(path, context="watched") for path in paths)
    for ended in bridge.as_completed(jobs, PATIENCE):
        assert ended.error is None, ended  # noqa: S101 - a wrong figure is worse than none


@contextmanager
def _scraped(redis_url: str) -> Iterator[None]:
    """Be Prometheus for the length of a `with` block."""
    ended = threading.Event()

    def scrape() -> None:
        with redis.Redis.from_url(redis_url) as client:
            while not ended.wait(SCRAPE_SECONDS):
                addresses: Any = client.hvals(keys.METRICS)
                for address in addresses:
                    httpx.get(f"http://{address.decode()}/metrics").raise_for_status()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _worker(environment: Mapping[str, str], count: int, log: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "-c", str(count), "-l", "INFO"]
    with (
        log.open("wb") as written,
        subprocess.Popen(command, stderr=written, stdout=written, env=environment) as process,
    ):
        try:
            yield process.pid
        finally:
            process.terminate()


def _processor_seconds(worker: int) -> float:
    """What a worker and its children have used so far (Linux)."""
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    ticks = 0
    for process in (str(worker), *children):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    harness.run(__doc__ or "", measure, rounds=8, files=200, workers=1)
