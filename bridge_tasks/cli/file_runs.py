"""One run over files: expand the arguments, send a job per file, wait with a live bar.

Knows nothing of what the jobs mean: `stamping` and `validation` do.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery.canvas import Signature

from bridge_tasks import correlation
from bridge_tasks.cli.files import Found, expand
from bridge_tasks.cli.jobs import NOT_SENT, SENDING, Answer, FileJobs
from bridge_tasks.cli.roots import require_roots
from bridge_tasks.cli.screen import counted, progress, say, show_json, show_rows

INTERRUPTED = 130
_ALL_ROWS = 20
"""Up to this many files each has its row; beyond, only those that need a look, and alike ones share one."""
_HEADINGS = ("File", "State", "Stamp or reason")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What every command over files takes; the words are those of its `--help`."""

    paths: Sequence[Path]
    include: Sequence[str]
    exclude: Sequence[str]
    namespace: str | None
    correlation_id: str | None
    timeout: float | None
    as_json: bool
    quiet: bool


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is over: an answer per file, in the order of the files."""

    correlation_id: str
    run_id: str
    answers: tuple[Answer, ...]
    seconds: float
    interrupted: bool

    @property
    def identity(self) -> dict[str, Any]:
        """What a JSON report begins with."""
        return {"correlation_id": self.correlation_id, "run_id": self.run_id, "total": len(self.answers)}


@dataclass(frozen=True, slots=True)
class Row:
    """A file in the table: its state, with the reason where there is something to say, else the stamp."""

    path: str
    state: str
    reason: str
    stamp_id: str


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to say about a run.

    Attributes:
        counts: of the files, by what became of them.
        jobs: the JSON object of each file.
        rows: the same for people.
        fine: the state that needs no look.
        well: whether everything is as it should be.
        summary: one line.
    """

    counts: dict[str, int]
    jobs: Sequence[dict[str, Any]]
    rows: Sequence[Row]
    fine: str
    well: bool
    summary: str


def run_over_files(options: RunOptions, title: str, build: Callable[[Found], Signature[Any]]) -> Run:
    """Do one job per file, all with one correlation id; Ctrl-C ends the waiting, not the jobs.

    Raises:
        ConfigurationError: jobs may read nothing here.
        InvalidRequest: an option is wrong, or a directory cannot be read; nothing was sent.
    """
    given = options.correlation_id
    with correlation.bound(correlation.ensure() if given is None else given) as correlation_id:
        require_roots(options.paths)
        found = {file.path: file for file in expand(options.paths, options.include, options.exclude)}
        if not found:
            say("No files found.")
        jobs = FileJobs(found, lambda path: build(found[path]))
        began = time.monotonic()
        interrupted = False
        try:
            with progress(title, len(found), quiet=options.quiet) as advance:
                for ended in jobs.run(timeout=options.timeout, warn=say):
                    advance(ended)
        except KeyboardInterrupt:
            interrupted = True
            jobs.collect()
    return Run(
        correlation_id=str(correlation_id),
        run_id=str(uuid4()),
        answers=tuple(jobs.answers.values()),
        seconds=round(time.monotonic() - began, 3),
        interrupted=interrupted,
    )


def present(run: Run, report: Report, options: RunOptions) -> int:
    """Show a report; returns the exit status."""
    if options.as_json:
        ending = {"interrupted": run.interrupted, "seconds": run.seconds, "jobs": report.jobs}
        show_json({**run.identity, **report.counts, **ending})
    elif run.answers:
        _show(run, report, quiet=options.quiet)
    if run.interrupted:
        return INTERRUPTED
    return 0 if run.answers and report.well else 1


def _show(run: Run, report: Report, *, quiet: bool) -> None:
    look = [row for row in report.rows if row.state != report.fine]
    shown = report.rows if len(report.rows) <= _ALL_ROWS and not quiet else look
    if shown:
        cells = [(row.path, row.state, row.reason or row.stamp_id) for row in shown]
        show_rows(_HEADINGS, cells if len(shown) <= _ALL_ROWS else _alike(shown))
    left = _left(run)
    if not quiet:
        say(f"{report.summary} in {run.seconds:.1f} s")
    if left:
        say(left)
    if left or not quiet:
        say(f"Correlation id: {run.correlation_id}")


def _alike(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Put files of which the same is to be said into one row."""
    counts = Counter((row.state, row.reason) for row in rows)
    return [(counted(count, "file"), state, reason) for (state, reason), count in counts.items()]


def _left(run: Run) -> str:
    """Say what has not ended, if anything, and what becomes of it."""
    unfinished = [answer for answer in run.answers if answer.state == "unfinished"]
    if not unfinished:
        return ""
    unsent = sum(answer.error == NOT_SENT for answer in unfinished)
    sending = sum(answer.error == SENDING for answer in unfinished)
    done = len(run.answers) - len(unfinished)
    parts = [f"{done} of {counted(len(run.answers), 'file')} done"]
    if sent := len(unfinished) - unsent - sending:
        parts.append(f"{counted(sent, 'job')} at workers or in the queue will go on")
    if sending:
        parts.append(f"{counted(sending, 'job')} may have been sent")
    if unsent:
        parts.append(f"{counted(unsent, 'file')} not sent")
    return f"{'Interrupted' if run.interrupted else 'Time is over'}: {', '.join(parts)}."
