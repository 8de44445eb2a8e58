"""What a person, or a program, is told of a bulk run: a table of what needs a look, a line that sums up, or JSON.

Outcomes are read chunk by chunk and told as they come; of a million files, this must never hold more than a few.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from bridge_tasks.cli.screen import counted, say, show_json, show_rows, summed_up
from bridge_tasks.content.allowed import real_path
from bridge_tasks.ledger.packing import FileOutcome, RunFile
from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.runs import Run

JOBS_IN_ONE_OBJECT = 10_000
"""Files of which `--json` tells each; of a larger run, it tells only of those that need a look."""

_ALL_ROWS = 20
"""Up to this many files each has its row; beyond, only those that need a look, and alike ones share one."""
_KINDS_TOLD = 100
_HEADINGS = ("File", "State", "Stamp or reason")
_UNFINISHED = "sent, not ended: it goes on"
_FINE = "succeeded"


@dataclass(frozen=True, slots=True)
class Manner:
    """How to tell: in one JSON object; in a line of JSON for each file, then one for the run; to people."""

    as_json: bool = False
    json_lines: bool = False
    quiet: bool = False


class Names:
    """How people call files: as they typed the directory that a file is in, else from where they are.

    Args:
        arguments: what was typed.
    """

    def __init__(self, arguments: Iterable[Path] = ()) -> None:
        self._typed = {real_path(Path.cwd()): Path()} | {real_path(argument): argument for argument in arguments}

    def of(self, label: str) -> str:
        """Return the name of the file that a run knows under `label`."""
        path = Path(label)
        for folder in (path, *path.parents):
            if folder in self._typed:
                return str(self._typed[folder] / path.relative_to(folder))
        return label


@dataclass(frozen=True, slots=True)
class Told:
    """A run, as far as it was watched.

    Attributes:
        run: the run.
        progress: how it stood last.
        names: how its files are called.
        expected: files that were to be submitted; more than the run has, where that was interrupted.
        seconds: for how long it was watched, or went on.
        interrupted: the exit status, if somebody stopped watching; else 0.
        away: whether Redis is out of reach: how it stood is what was last known, and no file can be told of.
    """

    run: Run
    progress: RunProgress
    names: Names = field(default_factory=Names)
    expected: int = 0
    seconds: float = 0.0
    interrupted: int = 0
    away: bool = False

    @property
    def total(self) -> int:
        """Files of the run, those included that were not sent."""
        return max(self.progress.total, self.expected)

    @property
    def counts(self) -> dict[str, int]:
        """Of the files, by what became of them; a degraded one has succeeded, too."""
        at = self.progress
        return {
            "succeeded": at.succeeded,
            "failed": at.failed,
            "cancelled": at.cancelled,
            "unfinished": self.total - at.over,
            "degraded": at.degraded,
        }

    @property
    def well(self) -> bool:
        """Whether there were files, all are stamped, and no more come."""
        return self.progress.sealed and 0 < self.total == self.progress.succeeded

    def jobs(self) -> Iterator[dict[str, Any]]:
        """Give the JSON object of each file that was sent, in order; of none without Redis."""
        if self.away:
            return
        for file, outcome in self.run.outcomes():
            yield _job(file, outcome, self.names)


def show(told: Told, manner: Manner) -> None:
    """Tell of a run."""
    if manner.as_json or manner.json_lines:
        _show_json(told, lines=manner.json_lines)
    else:
        _show_table(told, quiet=manner.quiet)
        if not manner.quiet:
            say(f"{summed_up(told.total, told.counts)} in {told.seconds:.1f} s")


def left(told: Told) -> str:
    """Say what has not ended, if anything, and what becomes of it."""
    at, unsent = told.progress, told.total - told.progress.total
    if not at.waiting and not unsent and not at.unsealed:
        return ""
    known = " when it last answered" if told.away else ""
    parts = [f"{at.over} of {counted(told.total, 'file')} done{known}"]
    if at.waiting:
        parts.append(f"{counted(at.waiting, 'file')} at workers or in the queue will go on")
    if unsent:
        parts.append(f"{counted(unsent, 'file')} not sent")
    elif at.unsealed:
        parts.append("and more may come: it was not submitted to its end yet")
    while_away = " while Redis is out of reach" if told.away else ""
    return f"{'Interrupted' if told.interrupted else 'Time is over'}{while_away}: {', '.join(parts)}."


def identity(told: Told) -> dict[str, Any]:
    """What a JSON report begins with."""
    return {"correlation_id": told.run.correlation_id, "run_id": told.run.id, "total": told.total, **told.counts}


def _show_json(told: Told, *, lines: bool) -> None:
    interrupted = bool(told.interrupted)
    ending = {"sealed": told.progress.sealed, "interrupted": interrupted, "seconds": told.seconds}
    if lines:
        for job in told.jobs():
            show_json(job)
        show_json({**identity(told), **ending})
        return
    whole = told.total <= JOBS_IN_ONE_OBJECT
    jobs = list(islice(told.jobs() if whole else _needing_a_look(told), JOBS_IN_ONE_OBJECT))
    show_json({**identity(told), **ending, "jobs": jobs, "jobs_left_out": told.progress.total - len(jobs)})


def _needing_a_look(told: Told) -> Iterator[dict[str, Any]]:
    """Give the files that did not simply succeed; where there are none, nothing is read."""
    if told.progress.succeeded < told.progress.total or told.progress.degraded:
        yield from (job for job in told.jobs() if job["state"] != _FINE or job["degraded"])


def _show_table(told: Told, *, quiet: bool) -> None:
    few = told.progress.total <= _ALL_ROWS and not quiet
    rows: list[tuple[str, str, str]] = []
    alike: Counter[tuple[str, str]] = Counter()
    for job in told.jobs() if few else _needing_a_look(told):
        row = _row(job)
        if len(rows) <= _ALL_ROWS:
            rows.append(row)
        kind = row[1:]
        alike[kind if kind in alike or len(alike) < _KINDS_TOLD else (row[1], "other reasons")] += 1
    if len(rows) > _ALL_ROWS:
        rows = [(counted(count, "file"), state, reason) for (state, reason), count in alike.items()]
    if rows:
        show_rows(_HEADINGS, rows)


def _row(job: Mapping[str, Any]) -> tuple[str, str, str]:
    """A file in the table: its state, with the reason where there is something to say, else the stamp."""
    state = "degraded" if job["degraded"] else job["state"]
    return job["path"], state, job["error"] or job["stamp_id"] or ""


def _job(file: RunFile, outcome: FileOutcome, names: Names) -> dict[str, Any]:
    refused = file.refused is not None
    state = "refused" if refused else outcome.state or "unfinished"
    reason = outcome.error[1] if outcome.error else None
    return {
        "path": file.label if refused else names.of(file.label),
        "state": state,
        "hash": outcome.hash,
        "stamp_id": outcome.stamp_id,
        "degraded": outcome.degraded,
        "error": file.refused or (_UNFINISHED if state == "unfinished" else reason),
    }
