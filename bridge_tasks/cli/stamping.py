"""`bridge-tasks stamp`: hash, enrich and stamp files, and tell which stand."""

from collections import Counter
from typing import Any

from celery.canvas import Signature

from bridge_tasks.cli.file_runs import Report, Row, Run, RunOptions, present, run_over_files
from bridge_tasks.cli.files import Found
from bridge_tasks.cli.jobs import Answer
from bridge_tasks.cli.screen import printable, summed_up
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
    return present(run, _report(run), options)


def _report(run: Run) -> Report:
    jobs = [_job(answer) for answer in run.answers]
    states = Counter(job["state"] for job in jobs)
    counts = {
        "succeeded": states["succeeded"],
        "failed": states["failed"] + states["refused"],
        "unfinished": states["unfinished"],
        "degraded": sum(job["degraded"] for job in jobs),
    }
    return Report(
        counts=counts,
        jobs=jobs,
        rows=[_row(job) for job in jobs],
        fine="succeeded",
        well=counts["succeeded"] == len(jobs),
        summary=summed_up(len(jobs), counts),
    )


def _job(answer: Answer) -> dict[str, Any]:
    stamped = answer.result or {}
    return {
        "path": str(answer.path),
        "state": "succeeded" if answer.state == "done" else answer.state,
        "hash": stamped.get("hash"),
        "stamp_id": stamped.get("stamp_id"),
        "degraded": stamped.get("degraded", False),
        "error": answer.error,
    }


def _row(job: dict[str, Any]) -> Row:
    state = "degraded" if job["degraded"] else job["state"]
    return Row(job["path"], state, job["error"] or "", job["stamp_id"] or "")
