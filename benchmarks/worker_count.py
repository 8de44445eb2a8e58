"""What do more workers bring? The same jobs (`stamp_file`, one message each) for 1, 2, 4 worker processes.

Services that answer at once show what the machine's processors bear; services that take their time show what
waiting side by side brings. Memory is that of all workers, what they share counted once; connections are those of
all workers to Redis.
"""

import tempfile
import time
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Figures, Row
from benchmarks.stage import Stage, connections, own_megabytes, processor_seconds, staged
from bridge_tasks.sandbox.processes import LocalProcess

CONTEXT = "count"
PATIENCE = 600.0


def measure(files: int, counts: str, latencies: str) -> Figures:
    """Measure with so many workers, and then with more, with each latency."""
    waits = [float(one) / 1000 for one in latencies.split(",")]
    rows = []
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as folder, staged(Path(folder)) as stage:
        workers: list[LocalProcess] = []
        for count in sorted(map(int, counts.split(","))):
            workers += [stage.worker(f"w{number}", 1) for number in range(len(workers), count)]
            rows.append(_row(stage, workers, waits, files))
    return {"rows": rows}


def _row(stage: Stage, workers: list[LocalProcess], waits: list[float], files: int) -> Row:
    stage.delay(0)
    _all_done(stage, 20 * len(workers))  # everything is open
    rates = {}
    used = sum(map(processor_seconds, workers))
    for wait in waits:
        stage.delay(wait)
        began = time.perf_counter()
        _all_done(stage, files)
        rates[f"files a second, {wait * 1000:g} ms"] = round(files / (time.perf_counter() - began), 1)
    used = sum(map(processor_seconds, workers)) - used
    return {
        "workers": len(workers),
        **rates,
        "worker ms a file": round(used / files / len(waits) * 1000, 1),
        "MB": round(sum(map(own_megabytes, workers))),
        "connections": sum(connections(stage.url, worker) for worker in workers),
    }


def _all_done(stage: Stage, files: int) -> None:
    # Imported when the environment says where everything is.
    from bridge_tasks import Bridge, workflows  # noqa: PLC0415

    bridge = Bridge()
    paths = harness.new_files(stage.directory, files)
    jobs = bridge.submit_all(workflows.stamp_file_job(path, context=CONTEXT) for path in paths)
    for ended in bridge.as_completed(jobs, PATIENCE):
        assert ended.error is None, ended  # noqa: S101 - a wrong figure is worse than none


if __name__ == "__main__":
    harness.run(__doc__, measure, files=300, counts="1,2,4", latencies="0,50")
