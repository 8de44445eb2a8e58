"""Is a run of 100,000 files as small as one of 10,000? Memory of who submits and who works, and bytes in Redis.

First it is submitted to a Redis where nobody works, and cancelled; then it is done by one worker process, while
somebody watches. Growth is from the peak (VmHWM) at a tenth of the files to the peak at the end, in kilobytes.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from benchmarks import harness
from benchmarks.harness import Figures
from bridge_tasks.cli.local_stack import Plan, local_stack
from bridge_tasks.sandbox.redis import PrivateRedis

PATIENCE = 3600.0
A_FOLDER = 500


def measure(files: int, work: int) -> Figures:
    """Measure the submitting of so many files and, if `work` is not 0, the stamping too."""
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as directory:
        documents = Path(directory, "documents")
        _write(documents, files)
        with PrivateRedis() as server:
            environment = {"BRIDGE_REDIS_URL": server.url, "BRIDGE_CONTENT__ROOTS": str(documents)}
            submitted = _elsewhere(environment, _submit, files)
        worked = _work(documents, files) if work else {}
    rows = [{"figure": name, "value": value} for name, value in {**submitted, **worked}.items()]
    return {"rows": rows, "files": files, **submitted, **worked}


def _elsewhere(environment: dict[str, str], ask: Any, *arguments: Any) -> dict[str, Any]:
    """Call a function in a process of its own, which reads the environment anew."""
    os.environ.update(environment)
    with multiprocessing.get_context("spawn").Pool(1) as own:
        answer: dict[str, Any] = own.apply(ask, arguments)
    return answer


def _submit(files: int) -> dict[str, Any]:
    """Submit to a Redis where nobody works; then cancel."""
    from bridge_tasks import runs  # noqa: PLC0415 - now that the environment says where everything is
    from bridge_tasks.runtime import current  # noqa: PLC0415

    peaks: list[int] = []
    client = current().ledger_redis
    began = time.perf_counter()
    before = _used(client)

    def on_chunk(_: Any, so_far: int) -> None:
        if not peaks and so_far >= files // 10:
            peaks.append(_peak("self"))

    run = runs.submit(_plan(files), on_chunk=on_chunk)
    seconds = time.perf_counter() - began
    bytes_each = (_used(client) - before) / files
    assert run.progress().total == files  # noqa: S101 - a wrong figure is worse than none
    began = time.perf_counter()
    run.cancel()
    ended = run.wait(PATIENCE)
    assert ended.cancelled == files  # noqa: S101 - the same
    return {
        "submitted, files/s": round(files / seconds),
        "submitter's peak, kB": _peak("self"),
        "submitter's growth, kB": _peak("self") - peaks[0],
        "bytes in Redis for each waiting file": round(bytes_each),
        "cancelled within, s": round(time.perf_counter() - began, 2),
    }


def _work(documents: Path, files: int) -> dict[str, Any]:
    """Have one worker process do it, and watch."""
    with local_stack(Plan(documents, concurrency=1, log_level="WARNING"), dict(os.environ)) as stack:
        pid = stack.worker.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return _elsewhere(dict(stack.variables), _watch, files, child)


def _watch(files: int, worker: str) -> dict[str, Any]:
    from bridge_tasks import Bridge  # noqa: PLC0415 - the same
    from bridge_tasks.runtime import current  # noqa: PLC0415

    client = current().ledger_redis
    before = _used(client)
    began = time.perf_counter()
    run = Bridge().submit(_plan(files))
    peak, over = 0, 0
    for at in run.watch(PATIENCE):
        assert over <= at.over <= at.total, at  # noqa: S101 - the same
        over = at.over
        if not peak and over >= files // 10:
            peak = _peak(worker)
    seconds = time.perf_counter() - began
    states = [outcome.state for _, outcome in run.outcomes()]
    assert states.count("succeeded") == at.succeeded == files, at  # noqa: S101 - the same
    return {
        "stamped, files/s": round(files / seconds),
        "worker's peak, kB": _peak(worker),
        "worker's growth, kB": _peak(worker) - peak,
        "bytes in Redis for each stamped file": round((_used(client) - before) / files),
    }


def _plan(files: int) -> Any:
    from bridge_tasks import workflows  # noqa: PLC0415 - the same

    root = Path(os.environ["BRIDGE_CONTENT__ROOTS"])
    return workflows.stamp_files((_path(root, n) for n in range(files)), context="docs", hashing="local")


def _path(root: Path, number: int) -> Path:
    return root / f"{number // A_FOLDER:05}" / f"page-{number:07}.md"


def _write(root: Path, files: int) -> None:
    for number in range(files):
        path = _path(root, number)
        if number % A_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_text(f"# Page {number}\n\nA page of text, as people write it.\n")


def _peak(process: str) -> int:
    """The most memory that a process has had, in kilobytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def _used(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


if __name__ == "__main__":
    if sys.platform != "linux":
        sys.exit("this reads /proc")
    harness.run(__doc__ or "", measure, files=100_000, work=1)
