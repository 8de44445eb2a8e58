"""`bridge-tasks status`: what became of a job, a run, a file, or what has a correlation id. It changes nothing.

`LOOKUPS` are tried one after the other on what was typed; the first that knows it tells.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge_tasks import correlation
from bridge_tasks.bridge import Bridge
from bridge_tasks.cli.advice import about_failure, about_waiting, resume_command
from bridge_tasks.cli.moments import ago, clock, lasting
from bridge_tasks.cli.screen import counted, say, show_facts, show_json, show_lines, show_rows
from bridge_tasks.errors import BridgeError
from bridge_tasks.ledger import DeadLetter, JobRecord
from bridge_tasks.ledger.dead import queue_of
from bridge_tasks.ledger.packing import FileOutcome, RunFile
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.runtime import Runtime, current

WELL, ILL, UNKNOWN = 0, 1, 2
"""How it exits: also while it goes on; failed or cancelled; nothing is known."""

_RESULT = ("stamp_id", "hash", "valid", "successful", "failed", "total")
"""What of a result is shown: no content, no intelligence."""
_SHOWN = 50
"""Jobs of one correlation id on the screen."""
_ORDER = ("failed", "cancelled", "running", "waiting", "succeeded")


@dataclass(frozen=True, slots=True)
class Card:
    """One thing that was found, as it is shown.

    Attributes:
        title: above its frame.
        state: in one word.
        facts: names and values for people.
        plain: the same for programs.
        steps: rows of a table below.
        row: itself as a row, where there are several.
    """

    title: str
    state: str
    facts: Mapping[str, str]
    plain: Mapping[str, Any]
    steps: Sequence[Sequence[str]] = ()
    row: Sequence[str] = field(default=())

    @property
    def ill(self) -> bool:
        """Whether somebody should know."""
        return self.state in ("failed", "cancelled")


Lookup = Callable[[Runtime, str, float], Sequence[Card]]
"""Gives what is known of what was typed; nothing where that is nothing. The time is Redis's, since the epoch."""


def status(what: str, *, as_json: bool) -> int:
    """Show what is known of a job's or run's id, a correlation id or a file; returns the exit status."""
    runtime = current()
    now = runtime.run(runtime.ledger.now()) / MICROSECONDS
    cards = next((found for lookup in LOOKUPS if (found := lookup(runtime, what, now))), ())
    if as_json:
        show_json({"asked": what, "found": [dict(card.plain) for card in cards]})
    elif not cards:
        say(f"Nothing is known of {what}: it is no job, run, correlation id or file of a job, or no longer.")
    elif len(cards) == 1:
        _show(cards[0])
    else:
        _show_all(what, cards)
    if not cards:
        return UNKNOWN
    return ILL if any(card.ill for card in cards) else WELL


def _show(card: Card) -> None:
    show_facts(card.title, card.facts, good=not card.ill)
    if card.steps:
        show_rows(("Step", "State", "Runs", "Took", "Id"), card.steps)


def _show_all(what: str, cards: Sequence[Card]) -> None:
    ranked = sorted(cards, key=lambda card: _ORDER.index(card.state) if card.state in _ORDER else 0)
    show_rows(("About", "State", "When", "Id"), [card.row for card in ranked[:_SHOWN]])
    counts = ((sum(card.state == state for card in cards), state) for state in _ORDER)
    told = ", ".join(f"{count} {state}" for count, state in counts if count)
    more = f" ({_SHOWN} shown)" if len(cards) > _SHOWN else ""
    show_lines(f"{counted(len(cards), 'job')} with {what}{more}: {told}")


def _by_id(runtime: Runtime, what: str, now: float) -> Sequence[Card]:
    record = runtime.run(runtime.ledger.find(what))
    return [_job(runtime, record, now)] if record else ()


def _by_run(runtime: Runtime, what: str, now: float) -> Sequence[Card]:
    progress = runtime.run(runtime.runs.progress(what))
    return [_run(progress, now)] if progress else ()


def _by_correlation(runtime: Runtime, what: str, now: float) -> Sequence[Card]:
    if not correlation.PATTERN.fullmatch(what):
        return ()
    names = runtime.run(runtime.ledger.by_correlation(what))
    records = runtime.run(runtime.ledger.records(names))
    if len(names) == 1 and records:
        return [_job(runtime, record, now) for record in records.values()]
    runs = [runtime.run(runtime.runs.progress(name)) for name in names if name not in records]
    return [
        *(_run(progress, now) for progress in runs if progress),
        *(_brief(record, now) for record in records.values()),
    ]


def _by_file(runtime: Runtime, what: str, now: float) -> Sequence[Card]:
    """The latest job about a file; a run that had it tells of it."""
    place = runtime.run(runtime.ledger.by_file(os.path.realpath(what)))
    if place is None:
        return ()
    in_run = runtime.run(runtime.runs.at(place)) if "|" in place else None
    return [_file(runtime, *in_run, now)] if in_run else _by_id(runtime, place, now)


LOOKUPS: tuple[Lookup, ...] = (_by_id, _by_run, _by_correlation, _by_file)


def _job(runtime: Runtime, record: JobRecord, now: float) -> Card:
    """Tell all of a job: itself, and its steps."""
    names = [name for name, _ in record.steps if name != record.id]
    steps = runtime.run(runtime.ledger.records(names))
    advice = _advice(runtime, record, steps)
    facts = {
        "What": record.title,
        **({"About": record.subject} if record.subject else {}),
        "State": _told_state(record, now),
        "Correlation id": record.correlation_id,
        **({"Step of": record.job} if record.job not in (None, record.id) else {}),
        "Accepted": f"{clock(record.accepted)} ({ago(now - record.accepted)})",
        **({"Began": clock(record.begun)} if record.begun and not record.steps else {}),
        **({"Ended": f"{clock(record.ended)}, after {_took(record)}"} if record.ended else {}),
        **({"Runs": _runs(record)} if record.runs and not record.steps else {}),
        **_outcome(record),
        **({"What to do": advice} if advice else {}),
    }
    plain = {**plain_of(record), "advice": advice}
    rows: list[Sequence[str]] = []
    told: list[dict[str, Any]] = []
    for name, task in record.steps:
        step = record if name == record.id else steps.get(name)
        rows.append(_step(name, task, step, record))
        brief = {"id": name, "task": task, "state": step.state if step else None}
        told.append(plain_of(step) if step and name != record.id else brief)
    return Card(f"Job {record.id}", record.state, facts, plain | {"steps": told}, rows)


def _brief(record: JobRecord, now: float) -> Card:
    row = (record.subject or record.title, record.state, ago(now - (record.ended or record.accepted)), record.id)
    return Card(f"Job {record.id}", record.state, {}, plain_of(record), row=row)


def _run(progress: RunProgress, now: float) -> Card:
    state = "running" if progress.state == "submitting" else progress.state
    ended = progress.ended
    facts = {
        "What": f"bulk run: {progress.title}",
        "State": state if progress.sealed or progress.done else f"{state}, and not submitted to its end yet",
        "Correlation id": progress.correlation_id,
        "Files": f"{progress.total}: {progress.succeeded} succeeded, {progress.failed} failed, "
        f"{progress.cancelled} cancelled, {progress.waiting} to come",
        **({"Degraded": str(progress.degraded)} if progress.degraded else {}),
        "Accepted": f"{clock(progress.accepted)} ({ago(now - progress.accepted)})",
        **({"Ended": f"{clock(ended)}, after {lasting(ended - progress.accepted)}"} if ended else {}),
        **({} if progress.done else {"What to do": f"bridge-tasks watch {progress.id}"}),
        **(
            {"Submitter gone?": f"{resume_command(progress.id)} (the same PATHs and options)"}
            if progress.unsealed
            else {}
        ),
    }
    counted_ = ("total", "succeeded", "failed", "cancelled", "degraded", "waiting", "sealed")
    plain = {
        "kind": "run",
        "id": progress.id,
        "state": state,
        "title": progress.title,
        "correlation_id": progress.correlation_id,
        "accepted": progress.accepted,
        "ended": ended,
        **{name: getattr(progress, name) for name in counted_},
    }
    row = (progress.title, state, ago(now - (ended or progress.accepted)), progress.id)
    return Card(f"Run {progress.id}", state, facts, plain, row=row)


def _file(runtime: Runtime, name: str, file: RunFile, outcome: FileOutcome, now: float) -> Card:
    """Tell of one file of a run."""
    progress = runtime.run(runtime.runs.progress(name))
    state = outcome.state or ("waiting" if progress is None or not progress.stopped else "cancelled")
    failed = ": ".join(outcome.error) if outcome.error else file.refused
    facts = {
        "What": f"a file of the run {name}",
        "State": f"{state}, degraded" if outcome.degraded else state,
        **({"Correlation id": progress.correlation_id} if progress else {}),
        **({"Accepted": f"{clock(progress.accepted)} ({ago(now - progress.accepted)})"} if progress else {}),
        **({"stamp_id": outcome.stamp_id} if outcome.stamp_id else {}),
        **({"hash": outcome.hash} if outcome.hash else {}),
        **({"Error": failed} if failed else {}),
        "What to do": f"bridge-tasks status {name}" if state in ("succeeded", "waiting") else "stamp it again",
    }
    plain = {
        "kind": "file",
        "run": name,
        "path": file.content.get("path"),
        "state": state,
        "hash": outcome.hash,
        "stamp_id": outcome.stamp_id,
        "degraded": outcome.degraded,
        "error": None if failed is None else {"type": (outcome.error or ("Refused",))[0], "message": failed},
    }
    return Card(str(file.content.get("path") or file.label), state, facts, plain)


def plain_of(record: JobRecord) -> dict[str, Any]:
    """Tell all of a record to a program; times are seconds since the epoch."""
    outcome = record.outcome
    error = outcome.error if outcome else None
    return {
        "kind": "job",
        "id": record.id,
        "state": record.state,
        "title": record.title,
        "task": record.task,
        "subject": record.subject,
        "correlation_id": record.correlation_id,
        "job": record.job,
        "queue": queue_of(record.queue),
        "accepted": record.accepted,
        "queued": record.queued,
        "begun": record.begun,
        "ended": record.ended,
        "runs": record.runs,
        "requeued": record.requeued,
        "result": outcome.result if outcome and not error else None,
        "error": None if error is None else {"type": type(error).__name__, "message": str(error)},
    }


def told_error(error: BridgeError) -> str:
    """Write an error for people: its type, and what it says."""
    name, said = type(error).__name__, str(error)
    return f"{name}: {said}" if said != name else name


def _told_state(record: JobRecord, now: float) -> str:
    if record.state == "waiting" and record.queue and record.queued:
        return f"waiting in {queue_of(record.queue)} for {lasting(now - record.queued)}"
    if record.state == "running" and record.begun:
        return f"running for {lasting(now - record.begun)}"
    return record.state


def _took(record: JobRecord) -> str:
    return lasting((record.ended or record.accepted) - record.accepted)


def _runs(record: JobRecord) -> str:
    lost = f", put back {counted(record.requeued, 'time')}" if record.requeued else ""
    return f"{record.runs}{lost}"


def _outcome(record: JobRecord) -> dict[str, str]:
    outcome = record.outcome
    if outcome is None:
        return {}
    if outcome.error is not None:
        return {"Error": told_error(outcome.error)}
    result = outcome.result
    if not isinstance(result, dict):
        return {}
    degraded = {"degraded": "yes: without intelligence"} if result.get("degraded") else {}
    return {key: str(result[key]) for key in _RESULT if key in result} | degraded


def _advice(runtime: Runtime, record: JobRecord, steps: Mapping[str, JobRecord]) -> str | None:
    if record.state == "waiting":
        return about_waiting(queue_of(record.queue), Bridge().health())
    error = record.outcome.error if record.outcome else None
    return None if error is None else about_failure(error, _letter(runtime, record, steps))


def _letter(runtime: Runtime, record: JobRecord, steps: Mapping[str, JobRecord]) -> DeadLetter | None:
    """The dead letter because of which a job failed: its own, or that of a step."""
    for name in (record.id, *(name for name, step in steps.items() if step.state == "failed")):
        letter = runtime.run(runtime.ledger.dead_letter(name))
        if letter is not None:
            return letter
    return None


def _step(name: str, task: str, step: JobRecord | None, job: JobRecord) -> Sequence[str]:
    label = task.removeprefix("bridge.")
    if step is None or (step is job and not job.queue):
        return label, "never began" if job.ended else "to come", "", "", name
    took = lasting(step.ended - step.begun) if step.ended and step.begun else ""
    state = "never began" if step.ended and not step.begun and step.state != "succeeded" else step.state
    return label, state, str(step.runs or ""), took, name
