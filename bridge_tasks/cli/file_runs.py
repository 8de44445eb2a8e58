"""One run over files: expand the arguments, send a job per file, wait with a live bar.

Knows nothing of what the jobs mean: `stamping` and `validation` do.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery.canvas import Signature

from bridge_tasks import correlation
from bridge_tasks.cli.files import Found, expand
from bridge_tasks.cli.jobs import Answer, run_jobs
from bridge_tasks.cli.screen import counted, progress, say, show_json, show_rows

INTERRUPTED = 130
_ALL_ROWS = 20
"""Up to this many files each has its row; beyond, only those that need a look."""


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
class Report:
    """What there is to say about a run.

    Attributes:
        body: the JSON object.
        headings: of the table.
        rows: of the table, in the order of `answers`; the second cell is the state.
        fine: the state that needs no look.
        summary: one line.
    """

    body: dict[str, Any]
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    fine: str
    summary: str


def run_over_files(options: RunOptions, title: str, build: Callable[[Found], Signature[Any]]) -> Run:
    """Do one job per file, all with one correlation id; Ctrl-C ends the waiting, not the jobs.

    Raises:
        InvalidRequest: an option is wrong, or a directory cannot be read; nothing was sent.
    """
    found = {file.path: file for file in expand(options.paths, options.include, options.exclude)}
    if not found:
        say("No file there to take.")
    answers = {path: Answer(path, "unfinished", error="was not sent") for path in found}
    began = time.monotonic()
    interrupted = False
    given = options.correlation_id
    with correlation.bound(correlation.ensure() if given is None else given) as correlation_id:
        try:
            with progress(title, len(found), quiet=options.quiet) as advance:
                for answer in run_jobs(
                    list(found), lambda path: build(found[path]), timeout=options.timeout, warn=say
                ):
                    answers[answer.path] = answer
                    if answer.state != "unfinished":
                        advance()
        except KeyboardInterrupt:
            interrupted = True
    return Run(
        correlation_id=str(correlation_id),
        run_id=str(uuid4()),
        answers=tuple(answers.values()),
        seconds=round(time.monotonic() - began, 3),
        interrupted=interrupted,
    )


def present(run: Run, report: Report, options: RunOptions) -> int:
    """Show a report; returns the exit status."""
    if options.as_json:
        show_json(report.body)
    else:
        look = [row for row in report.rows if row[1] != report.fine]
        shown = report.rows if len(report.rows) <= _ALL_ROWS and not options.quiet else look
        if shown:
            show_rows(report.headings, shown)
        if not options.quiet:
            say(f"{report.summary} in {run.seconds:.1f} s, correlation id {run.correlation_id}")
    if run.interrupted:
        done = sum(answer.state != "unfinished" for answer in run.answers)
        say(
            f"Interrupted: {done} of {counted(len(run.answers), 'file')} done. "
            f"Jobs that were accepted go on, under correlation id {run.correlation_id}"
        )
        return INTERRUPTED
    return 0
