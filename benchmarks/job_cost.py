"""What does a file cost: Redis's commands, bytes, processor and memory, and the workers' processor?

stamp_file   one message for each file
chain        hash | intelligence | stamp: three messages for each file
run          `workflows.stamp_files`: a message for a chunk of files
idle         nothing to do, for some seconds: what one worker with two processes costs a second

Memory is what 1,000 files more take: while all wait, and when all have ended (records are kept for a day). All of
it is counted by Redis and by the kernel; nothing depends on how busy the machine is but the processor's time.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from benchmarks import harness
from benchmarks.harness import Figures, Row
from benchmarks.stage import Stage, processor_seconds, staged

CONTEXT = "cost"
PATIENCE = 600.0

Submit = Callable[[Sequence[Path]], Callable[[], None]]
"""Submits, and returns what waits for the end of it."""


def measure(files: int, seconds: int) -> Figures:
    """Measure each kind."""
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as folder, staged(Path(folder)) as stage:
        rows = {name: _waiting(stage, submit, files) for name, submit in _ways().items()}
        worker = stage.worker("one", 2)
        for name, submit in _ways().items():
            submit(harness.new_files(Path(folder), 20))()  # everything is open, and known to Redis
            rows[name] |= _done(stage, submit, files, lambda: processor_seconds(worker))
        idle = _spent(stage, lambda: time.sleep(seconds), lambda: processor_seconds(worker), seconds)
    return {
        "rows": [
            *({"what": f"{name}, a file", **row} for name, row in rows.items()),
            {"what": "idle, a second", "waiting MB": 0.0, "ended MB": 0.0, **idle},
        ]
    }


def _waiting(stage: Stage, submit: Submit, files: int) -> Row:
    """Submit for nobody, and see what it takes."""
    submit(harness.new_files(stage.directory, 20))
    before = stage.used()["memory"]
    submit(harness.new_files(stage.directory, files))
    row = {"waiting MB": round((stage.used()["memory"] - before) / files / 1000, 2)}
    with redis.Redis.from_url(stage.url) as client:
        client.flushdb()
    return row


def _done(stage: Stage, submit: Submit, files: int, used: Callable[[], float]) -> Row:
    paths = harness.new_files(stage.directory, files)
    before = stage.used()["memory"]

    def work() -> None:
        wait = submit(paths)
        wait()

    row = _spent(stage, work, used, files)
    return {"ended MB": round((stage.used()["memory"] - before) / files / 1000, 2), **row}


def _spent(stage: Stage, work: Callable[[], Any], used: Callable[[], float], count: int) -> Row:
    before, commands, processor = stage.used(), harness.redis_commands(stage.url), used()
    work()
    after = stage.used()
    spent = {name: (after[name] - before[name]) / count for name in after}
    return {
        "Redis commands": round((harness.redis_commands(stage.url) - commands) / count, 1),
        "KB in": round(spent["in"] / 1000, 2),
        "KB out": round(spent["out"] / 1000, 2),
        "Redis ms": round(spent["seconds"] * 1000, 2),
        "worker ms": round((used() - processor) / count * 1000, 1),
    }


def _ways() -> dict[str, Submit]:
    # Imported when the environment says where everything is.
    from bridge_tasks import Bridge, workflows  # noqa: PLC0415

    bridge = Bridge()

    def ended(jobs: list[Any]) -> Callable[[], None]:
        def wait() -> None:
            for one in bridge.as_completed(jobs, PATIENCE):
                assert one.error is None, one  # noqa: S101 - a wrong figure is worse than none

        return wait

    def single(paths: Sequence[Path]) -> Callable[[], None]:
        return ended(bridge.submit_all(workflows.stamp_file_job(path, context=CONTEXT) for path in paths))

    def chain(paths: Sequence[Path]) -> Callable[[], None]:
        return ended([bridge.submit(workflows.stamp_file(path, context=CONTEXT)) for path in paths])

    def run(paths: Sequence[Path]) -> Callable[[], None]:
        begun = bridge.submit(workflows.stamp_files(paths, context=CONTEXT))

        def wait() -> None:
            assert begun.wait(PATIENCE).state == "succeeded"  # noqa: S101 - the same

        return wait

    return {"stamp_file": single, "chain": chain, "run": run}


if __name__ == "__main__":
    harness.run(__doc__, measure, files=1000, seconds=20)
