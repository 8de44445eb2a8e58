"""`bridge-tasks demo`: real files through real workers, checked, summed up, and cleared away.

Every figure is counted where the thing happens. Writes nothing outside one temporary directory.
"""

import json
import os
import shutil
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from bridge_tasks import correlation, workflows
from bridge_tasks.bridge import Bridge
from bridge_tasks.chunking import Source
from bridge_tasks.cli.file_runs import INTERRUPTED, Run, RunOptions, run_over_files
from bridge_tasks.cli.local_stack import LocalStack, Plan, local_stack
from bridge_tasks.cli.run_report import Told
from bridge_tasks.cli.screen import announce, bars, counted, say, show_facts, show_json, show_lines
from bridge_tasks.cli.signals import end_on_signals
from bridge_tasks.cli.validation import job_of, validation_job
from bridge_tasks.cli.watching import Follower
from bridge_tasks.sandbox.redis import URL_VARIABLE

_PROGRAM = "bridge-tasks"
_WORKERS = 2
_MAX_FILE_BYTES = 256 * 1024
_CHUNK_FILES = 10
"""Small chunks: both processes have work, and what one has asked OnexTree, the other finds in the cache."""
_STAGE_SECONDS = 120.0
"""For stamping or validating all files: many times what a slow machine needs."""
_TROUBLES_TOLD = 10
_LEFT_OUT = frozenset({"test", "tests", "idle_test", "site-packages", "__pycache__"})
"""Files that are broken on purpose, and other people's."""
_LOG_FOR_COUNTING = {"BRIDGE_LOG__JSON_LINES": "true"}
_RETRY_LINES = frozenset({"trying again", "job put back"})
"""What a worker's log says of a request, and of a job, that is to be tried once more."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the demonstration counted; `seconds` and `jobs_per_second` are of the stamping."""

    files: int
    bytes: int
    seconds: float
    jobs_per_second: float
    requests: int
    retries: int
    cache_hits: int
    degraded: int
    failed: int
    valid: int
    changed: int
    changed_found: int
    correlation_id: str

    @property
    def good(self) -> bool:
        """Whether everything went as it should."""
        return self.failed == 0 and self.valid == self.files and self.changed_found == self.changed


def demo(files: int, *, as_json: bool) -> int:
    """Run the demonstration over `files` sources of the standard library; returns the exit status."""
    end_on_signals()
    try:
        figures = _demonstrate(files)
    except KeyboardInterrupt:
        say("Interrupted: everything is stopped and removed.")
        return INTERRUPTED
    if as_json:
        show_json(asdict(figures))
    else:
        _show(figures)
    return 0 if figures.good else 1


def _demonstrate(files: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="bridge-demo-", ignore_cleanup_errors=True) as directory:
        tempfile.tempdir = directory  # whatever else this process wants to write goes there, too
        tree = Path(directory, "files")
        _copy_sources(tree, files)
        say(f"Starting Redis, both services and a worker with {_WORKERS} processes")
        _forget_other_deployments()
        with local_stack(Plan(tree, concurrency=_WORKERS), {**os.environ, **_LOG_FOR_COUNTING}) as stack:
            os.environ.update(stack.variables)  # before anything here asks for the settings
            return _stamp_and_validate(tree, stack)


def _forget_other_deployments() -> None:
    """Drop the settings that the environment holds, but for a Redis that a machine without one may need."""
    for name in [name for name in os.environ if name.startswith(("BRIDGE_", "CELERY_")) and name != URL_VARIABLE]:
        del os.environ[name]


def _copy_sources(tree: Path, wanted: int) -> None:
    """Copy sources of the standard library, evenly spread over it, the same ones each time."""
    library = Path(sysconfig.get_path("stdlib"))
    sources = sorted(
        path
        for path in library.rglob("*.py")
        if not _LEFT_OUT & set(path.relative_to(library).parts) and 0 < path.stat().st_size <= _MAX_FILE_BYTES
    )
    count = min(wanted, len(sources))
    for source in (sources[index * len(sources) // count] for index in range(count)):
        copy = tree / source.relative_to(library)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)


def _stamp_and_validate(tree: Path, stack: LocalStack) -> Figures:
    correlation_id = correlation.ensure()
    # Named one by one: in a directory, the standard library's `venv` would be taken for an environment.
    files = sorted(tree.rglob("*.py"))
    stamping = _stamp(files, tree, correlation_id)
    validating = _validate(files, "Validating", correlation_id)
    changed = _change_one(tree)
    checking = _validate([changed], "Looking at a file that was changed on purpose", correlation_id)

    stamped = [file for file, outcome in stamping.run.outcomes() if outcome.state == "succeeded"]
    metadata, onextree = (_operations(url) for url in (stack.metadata_url, stack.onextree_url))
    reached = sum(count for operation, count in onextree.items() if operation.endswith("/intelligence"))
    return Figures(
        files=stamping.total,
        bytes=sum(file.content["size"] for file in stamped),
        seconds=stamping.seconds,
        jobs_per_second=round(len(stamped) / stamping.seconds, 1),
        requests=sum(metadata.values()) + sum(onextree.values()),
        retries=_retries(stack.worker.log),
        cache_hits=_questions([file.context for file, _ in stamping.run.outcomes()]) - reached,
        degraded=stamping.progress.degraded,
        failed=stamping.total - len(stamped),
        valid=_count(validating, "valid"),
        changed=len(checking.answers),
        changed_found=_count(checking, "unstamped") + _count(checking, "invalid"),
        correlation_id=correlation_id,
    )


def _stamp(paths: Sequence[Path], tree: Path, correlation_id: str) -> Told:
    """Stamp the files as one run."""

    def ask_about_package(source: Source) -> str:
        package, *rest = Path(str(source)).relative_to(tree).parts
        return f"python {package if rest else 'standard library'}"

    announce("Stamping")
    plan = workflows.stamp_files(
        paths, context=ask_about_package, chunk_files=_CHUNK_FILES, correlation_id=correlation_id, title="demo"
    )
    began = time.monotonic()
    with bars() as shown:
        run = Bridge().submit(plan)
        Follower(shown, len(paths)).follow(run, _STAGE_SECONDS)
    told = Told(run, run.progress(), seconds=round(time.monotonic() - began, 3))
    troubled = (job for job in told.jobs() if job["error"])
    for job in islice(troubled, _TROUBLES_TOLD):
        say(f"{Path(job['path']).name}: {job['state']}: {job['error']}")
    return told


def _questions(contexts: Sequence[str]) -> int:
    """Count what was asked about: each chunk asks once about each of its contexts, OnexTree or the cache."""
    chunks = (contexts[begin : begin + _CHUNK_FILES] for begin in range(0, len(contexts), _CHUNK_FILES))
    return sum(len(set(chunk)) for chunk in chunks)


def _validate(paths: Sequence[Path], title: str, correlation_id: str) -> Run:
    announce(title)
    options = RunOptions(paths, (), (), None, correlation_id, _STAGE_SECONDS, as_json=False, quiet=False)
    run = run_over_files(options, title, validation_job)
    if run.interrupted:
        raise KeyboardInterrupt
    for answer in [answer for answer in run.answers if answer.error][:_TROUBLES_TOLD]:
        say(f"{answer.path.name}: {answer.state}: {answer.error}")
    return run


def _count(run: Run, state: str) -> int:
    return sum(job_of(answer)["state"] == state for answer in run.answers)


def _change_one(tree: Path) -> Path:
    """Change the case of one letter in the middle of one file."""
    path = max(tree.rglob("*.py"), key=lambda file: (file.stat().st_size, file))
    content = bytearray(path.read_bytes())
    letter = next(
        place for place in range(len(content) // 2, len(content)) if content[place : place + 1].isalpha()
    )
    content[letter] ^= 0x20
    path.write_bytes(content)
    return path


def _operations(service_url: str) -> dict[str, int]:
    """What was asked of a service, as it counted itself."""
    with urllib.request.urlopen(f"{service_url}/_sandbox/counts", timeout=10) as answer:  # noqa: S310 - http, our own
        operations: dict[str, int] = json.load(answer)["operations"]
    return operations


def _retries(log: Path) -> int:
    """Count the lines of a worker's log that tell of a retry."""
    events = (json.loads(line).get("event") for line in log.read_text().splitlines() if line.startswith("{"))
    return sum(event in _RETRY_LINES for event in events)


def _show(figures: Figures) -> None:
    show_facts(
        "Demonstration: all well" if figures.good else "Demonstration: something went wrong",
        {
            "Files stamped": f"{figures.files - figures.failed} of {figures.files}, {figures.bytes:,} bytes",
            "Speed": f"{figures.jobs_per_second:,.0f} files per second, {figures.seconds:.1f} s in all",
            "Validated": f"{figures.valid} of {figures.files} are what was stamped",
            "Changed on purpose": f"{counted(figures.changed, 'file')}, found: {figures.changed_found}",
            "HTTP requests": f"{figures.requests:,} reached the services",
            "Retries": str(figures.retries),
            "Cache hits": f"{figures.cache_hits} answers of OnexTree",
            "Degraded": str(figures.degraded),
            "Failed": str(figures.failed),
            "Correlation id": figures.correlation_id,
        },
        good=figures.good,
    )
    show_lines("", "Next:", *(f"  {line}" for line in _next_steps()))


def _next_steps() -> list[str]:
    activate = Path(sys.prefix, "bin", "activate")
    steps = [f"source {_from_here(activate)}"] if not shutil.which(_PROGRAM) and activate.exists() else []
    steps += [
        f"{_PROGRAM} up       the same, to stay, with Flower to watch it",
        f"{_PROGRAM} stamp .  your own files, from another terminal",
    ]
    return [*steps, "docs/architecture.md  how it is built"] if Path("docs/architecture.md").exists() else steps


def _from_here(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
