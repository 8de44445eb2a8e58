"""`bridge-tasks validate`: check files against their stamps, and tell which still are what was stamped."""

from collections import Counter
from typing import Any

from celery.canvas import Signature

from bridge_tasks.cli.file_runs import Report, Row, Run, RunOptions, present, run_over_files
from bridge_tasks.cli.files import Found
from bridge_tasks.cli.jobs import Answer
from bridge_tasks.cli.screen import summed_up
from bridge_tasks.content import file_content
from bridge_tasks.settings import load
from bridge_tasks.tasks import validate_stamp

_NO_STAMP = "never stamped, or changed since"
_WORDS = {"unstamped": "no stamp"}
"""What people read for what programs read."""


def validate(options: RunOptions) -> int:
    """Validate the files; returns the exit status."""
    run = run_over_files(options, "Validating", lambda file: validation_job(file, options.namespace))
    return present(run, _report(run), options)


def validation_job(file: Found, namespace: str | None = None) -> Signature[Any]:
    """Build the job that checks one file.

    Raises:
        InvalidRequest: the file may not be read.
    """
    content = file_content(file.path, load().content).model_dump(mode="json")
    return validate_stamp.s(content=content, namespace=namespace)


def job_of(answer: Answer) -> dict[str, Any]:
    """Tell of one file: `valid`, `invalid`, `unstamped`, or why it could not be checked."""
    validated = answer.result or {}
    return {
        "path": str(answer.path),
        "state": _verdict(validated) if answer.state == "done" else answer.state,
        "source": validated.get("source"),
        "stamps_found": validated.get("stamps_found"),
        "stamp_id": validated.get("stamp_id"),
        "error": answer.error,
    }


def _verdict(validated: dict[str, Any]) -> str:
    if validated["valid"]:
        return "valid"
    return "unstamped" if validated["source"] == "none" else "invalid"


def _report(run: Run) -> Report:
    jobs = [job_of(answer) for answer in run.answers]
    states = Counter(job["state"] for job in jobs)
    counts = {
        **{state: states[state] for state in ("valid", "invalid", "unstamped")},
        "failed": states["failed"] + states["refused"],
        "unfinished": states["unfinished"],
    }
    told = {_WORDS.get(state, state): count for state, count in counts.items()}
    return Report(
        counts=counts,
        jobs=jobs,
        rows=[_table_row(job) for job in jobs],
        fine="valid",
        well=counts["valid"] == len(jobs),
        summary=summed_up(len(jobs), told),
    )


def _table_row(job: dict[str, Any]) -> Row:
    reason = _NO_STAMP if job["state"] == "unstamped" else job["error"] or ""
    return Row(job["path"], _WORDS.get(job["state"], job["state"]), reason, job["stamp_id"] or "")
