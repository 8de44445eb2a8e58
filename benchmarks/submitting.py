"""How many files a second can be handed in? Nobody works meanwhile: Redis, and one process that submits.

plain delay   `delay()` of a plain Celery task in a loop: a message each, and no record
our delay     `delay()` of `bridge.stamp_file` in a loop: arguments checked, message and record in one step
submit        `Bridge.submit` in a loop: the same, and the job has a key, so that the same work is done once
submit_all    `Bridge.submit_all`: the same, several in one round trip
a run         `Bridge.submit` of `workflows.stamp_files`: a chunk of files in one message, each on record

Ours are durable: a job is on record in the instant in which its message is sent. Rounds are interleaved, each with
files nobody has seen.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Figures
from bridge_tasks.sandbox.redis import private_redis

CONTEXT = "submitting"

Way = Callable[[Sequence[Path]], Any]


def measure(rounds: int, files: int) -> Figures:
    """Measure each way in each round."""
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as directory, private_redis() as server:
        os.environ |= {
            "BRIDGE_REDIS_URL": server.url,
            "BRIDGE_CONTENT__ROOTS": directory,
            "PLAIN_REDIS_URL": f"{server.url.rpartition('/')[0]}/1",
        }
        ways = _ways()
        rates: dict[str, list[float]] = {name: [] for name in ways}
        commands = dict.fromkeys(ways, 0.0)
        for number in range(rounds + 1):
            for name, way in ways.items():
                paths = harness.new_files(Path(directory), files)
                before = harness.redis_commands(server.url)
                began = time.perf_counter()
                way(paths)
                rates[name].append(files / (time.perf_counter() - began))
                commands[name] = round((harness.redis_commands(server.url) - before) / files, 3)
            if number == 0:
                for some in rates.values():
                    some.clear()  # the first round warms up
    return {
        "rows": [
            {
                "handed in by": name,
                "files a second": round(statistics.median(some)),
                "to plain delay": _ratio(some, rates["plain delay"]),
                "to our delay": _ratio(some, rates["our delay"]),
                "Redis commands a file": commands[name],
            }
            for name, some in rates.items()
        ]
    }


def _ratio(some: Sequence[float], others: Sequence[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(some, others, strict=True)), 2)


def _ways() -> dict[str, Way]:
    # Imported when the environment says where everything is.
    from benchmarks import plain_celery  # noqa: PLC0415
    from bridge_tasks import Bridge, workflows  # noqa: PLC0415

    bridge = Bridge()

    def jobs(paths: Sequence[Path]) -> Any:
        return (workflows.stamp_file_job(path, context=CONTEXT) for path in paths)

    return {
        "plain delay": lambda paths: [plain_celery.hash_file.delay(str(path)) for path in paths],
        "our delay": lambda paths: [job.delay() for job in jobs(paths)],
        "submit": lambda paths: [bridge.submit(job) for job in jobs(paths)],
        "submit_all": lambda paths: bridge.submit_all(jobs(paths)),
        "a run": lambda paths: bridge.submit(workflows.stamp_files(paths, context=CONTEXT)),
    }


if __name__ == "__main__":
    harness.run(__doc__, measure, rounds=7, files=1000)
