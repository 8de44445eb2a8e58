"""`bridge-tasks stamp`: hash, enrich and stamp files, and tell which stand."""

from typing import Any

from celery.canvas import Signature

from bridge_tasks.cli.file_runs import Report, Run, RunOptions, present, run_over_files
from bridge_tasks.cli.files import Found
from bridge_tasks.cli.jobs import Answer
from bridge_tasks.cli.screen import counted, printable
from bridge_tasks.workflows import stamp_file_job


def stamp(options: RunOptions, context: str | None) -> int:
    """Stamp the files; returns the exit status.

    Args:
        options: what to take, and how to tell.
        context: what intelligence is asked about; by default the name of the directory or file that was given.
    """

    def job(file: Found) -> Signature[Any]:
        about = f"stamp {printable(file.argument.resolve().name) or '/'}" if context is None else context
        return stamp_file_job(file.path, context=about, namespace=options.namespace)

    run = run_over_files(options, "Stamping", job)
    jobs = [_row(answer) for answer in run.answers]
    report = _report(run, jobs)
    return present(run, report, options) or int(report.body["failed"] > 0)


def _row(answer: Answer) -> dict[str, Any]:
    stamped = answer.result or {}
    return {
        "path": str(answer.path),
        "state": "succeeded" if answer.state == "done" else answer.state,
        "hash": stamped.get("hash"),
        "stamp_id": stamped.get("stamp_id"),
        "degraded": stamped.get("degraded", False),
        "error": answer.error,
    }


def _report(run: Run, jobs: list[dict[str, Any]]) -> Report:
    succeeded = sum(job["state"] == "succeeded" for job in jobs)
    failed, degraded = len(jobs) - succeeded, sum(job["degraded"] for job in jobs)
    counts = {"succeeded": succeeded, "failed": failed, "degraded": degraded}
    return Report(
        body={**run.identity, **counts, "seconds": run.seconds, "jobs": jobs},
        headings=("File", "State", "Stamp or error"),
        rows=[
            (job["path"], "degraded" if job["degraded"] else job["state"], job["error"] or job["stamp_id"] or "")
            for job in jobs
        ],
        fine="succeeded",
        summary=f"{counted(len(jobs), 'file')}: {succeeded} succeeded, {failed} failed, {degraded} degraded",
    )
