"""`bridge-tasks validate`: check files against their stamps, and tell which still are what was stamped."""

from collections import Counter
from typing import Any

from celery.canvas import Signature

from bridge_tasks.cli.file_runs import Report, Run, RunOptions, present, run_over_files
from bridge_tasks.cli.files import Found
from bridge_tasks.cli.jobs import Answer
from bridge_tasks.cli.screen import counted
from bridge_tasks.content import file_content
from bridge_tasks.settings import load
from bridge_tasks.tasks import validate_stamp

_FAILED = ("failed", "refused", "unfinished")


def validate(options: RunOptions) -> int:
    """Validate the files; returns the exit status."""
    run = run_over_files(options, "Validating", lambda file: validation_job(file, options.namespace))
    jobs = [row(answer) for answer in run.answers]
    report = _report(run, jobs)
    return present(run, report, options) or int(report.body["valid"] < len(jobs))


def validation_job(file: Found, namespace: str | None = None) -> Signature[Any]:
    """Build the job that checks one file.

    Raises:
        InvalidRequest: the file may not be read.
    """
    content = file_content(file.path, load().content).model_dump(mode="json")
    return validate_stamp.s(content=content, namespace=namespace)


def row(answer: Answer) -> dict[str, Any]:
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


def _report(run: Run, jobs: list[dict[str, Any]]) -> Report:
    states = Counter(job["state"] for job in jobs)
    counts = {
        **{state: states[state] for state in ("valid", "invalid", "unstamped")},
        "failed": sum(states[state] for state in _FAILED),
    }
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return Report(
        body={**run.identity, **counts, "seconds": run.seconds, "jobs": jobs},
        headings=("File", "State", "Source", "Stamp or error"),
        rows=[
            (job["path"], job["state"], job["source"] or "", job["error"] or job["stamp_id"] or "") for job in jobs
        ],
        fine="valid",
        summary=f"{counted(len(jobs), 'file')}: {told}",
    )
