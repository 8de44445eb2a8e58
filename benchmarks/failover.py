"""What does a failover cost, and what does it cost to be ready for one? A Redis, two replicas, three sentinels.

In each round the master is killed while one worker is idle: after how long have the sentinels made another one
master, is a job accepted by it, and is that job done? Sentinels take a master for dead after a second here. First,
files are submitted one by one with and without waiting for a replica; `to 0 copies` is the ratio of the rates.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Figures
from benchmarks.stage import staged_on
from tests.watched import WatchedRedis

CONTEXT = "failover"
PATIENCE = 120.0


def measure(rounds: int, files: int) -> Figures:
    """Measure in rounds."""
    seconds: dict[str, list[float]] = {"promoted": [], "accepted": [], "done": []}
    ratios: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as folder:
        directory = Path(folder)
        (directory / "redis").mkdir()
        with WatchedRedis(directory / "redis") as server, staged_on(server, directory) as stage:
            _submitted(directory, 20, copies=1)
            for number in range(rounds):
                order = (0, 1) if number % 2 else (1, 0)  # what slows the machine slows both
                rates = {copies: _submitted(directory, files, copies=copies) for copies in order}
                ratios.append(rates[1] / rates[0])
            stage.worker("one", 2)
            for _ in range(rounds):
                _until(lambda: _done(directory), "all that was submitted is done")
                began = time.perf_counter()
                server.kill()
                _until(lambda: server.promoted, "another one is master")
                seconds["promoted"].append(time.perf_counter() - began)
                job = _until(lambda: _accepted(directory), "a job is accepted")
                seconds["accepted"].append(time.perf_counter() - began)
                job.result(timeout=PATIENCE)
                seconds["done"].append(time.perf_counter() - began)
                server.start()
                _until(lambda: server.whole, "the one that was killed is a replica")
    return {
        "rows": [
            {
                "failovers": rounds,
                **{f"{name} after s": round(statistics.median(some), 2) for name, some in seconds.items()},
                "submit to 0 copies": round(statistics.median(ratios), 2),
            }
        ]
    }


def _submitted(directory: Path, files: int, *, copies: int) -> float:
    """Submit files one by one; how many a second."""
    # Imported when the environment says where everything is.
    from bridge_tasks import Bridge, runtime, workflows  # noqa: PLC0415
    from bridge_tasks.settings import load  # noqa: PLC0415

    os.environ["BRIDGE_SENTINEL__COPIES"] = str(copies)
    load.cache_clear()
    runtime.close()
    jobs = [workflows.stamp_file_job(path, context=CONTEXT) for path in harness.new_files(directory, files + 1)]
    bridge = Bridge()
    bridge.submit(jobs[0])  # connects
    began = time.perf_counter()
    for job in jobs[1:]:
        bridge.submit(job)
    return files / (time.perf_counter() - began)


def _accepted(directory: Path) -> Any:
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - the same

    from bridge_tasks import Bridge, workflows  # noqa: PLC0415 - the same

    (path,) = harness.new_files(directory, 1)
    try:
        return Bridge().submit(workflows.stamp_file_job(path, context=CONTEXT))
    except OperationalError:
        return None


def _done(directory: Path) -> bool:
    job = _accepted(directory)
    return job is not None and bool(job.result(timeout=PATIENCE))


def _until(check: Callable[[], Any], what: str) -> Any:
    ends = time.monotonic() + PATIENCE
    while not (found := check()):
        if time.monotonic() > ends:
            raise TimeoutError(what)
        time.sleep(0.02)
    return found


if __name__ == "__main__":
    harness.run(__doc__, measure, rounds=5, files=300)
