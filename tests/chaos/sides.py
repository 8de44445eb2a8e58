"""Whom a campaign is waged against: ours, or plain Celery; each says how it works, submits and ends.

A side knows nothing of who is killed when. What is submitted is about texts, each in a file of its own; a kind of
job that is new is one more case in each side's `works`.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from celery import chain
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from bridge_tasks import runtime, workflows
from bridge_tasks.bridge import Bridge
from bridge_tasks.ledger import Outcome
from bridge_tasks.runs import Run
from tests.chaos import plain

ROOT = Path(__file__).parents[2]

AWAY = (OperationalError, RedisError, OSError)
"""What a submitter is told when Redis is away; it tries again with the same work."""


@dataclass(frozen=True, slots=True)
class Services:
    """Where everything is; of Redis, the settings that say so."""

    redis: Mapping[str, str]
    metadata: str
    onextree: str
    files: Path


Work = Callable[[], list[str]]
"""Submits a job; called again after one of `AWAY`, it submits the same. Returns an id for each of its files."""


class Side(Protocol):
    """One way to do the same jobs."""

    app: str

    def environment(self, services: Services) -> dict[str, str]:
        """What workers, and the submitter's own process, are told."""

    def works(self, kind: str, files: Sequence[Path]) -> Iterator[Work]:
        """Give what is to be submitted of a kind about some files."""

    def states(self, names: Iterable[str]) -> dict[str, str]:
        """Say how jobs stand: `succeeded`, `failed`, `cancelled`, another state, or `unknown`."""

    def record(self, name: str) -> str:
        """Tell all that is known of a job, for the report of a failure."""


KINDS = ("single", "chain", "bulk")
"""Every file is in a job of one of these kinds; all kinds have as many files."""


class Ours:
    """`bridge_tasks`, with short times, so that a death is noticed within seconds."""

    app = "bridge_tasks.app"

    def environment(self, services: Services) -> dict[str, str]:
        """The settings; what is not here is as it comes."""
        return {
            **services.redis,
            "BRIDGE_CONTENT__ROOTS": str(services.files),
            "BRIDGE_METADATA__URLS": services.metadata,
            "BRIDGE_ONEXTREE__URLS": services.onextree,
            "BRIDGE_METADATA__TIMEOUT": "2",
            "BRIDGE_METADATA__DEADLINE": "6",
            "BRIDGE_ONEXTREE__TIMEOUT": "2",
            "BRIDGE_ONEXTREE__DEADLINE": "6",
            "BRIDGE_METADATA__BREAKER__RECOVERY_TIMEOUT": "1",
            "BRIDGE_METADATA__BREAKER__MAX_RECOVERY_TIMEOUT": "4",
            "BRIDGE_ONEXTREE__BREAKER__RECOVERY_TIMEOUT": "1",
            "BRIDGE_ONEXTREE__BREAKER__MAX_RECOVERY_TIMEOUT": "4",
            "BRIDGE_TASK__DEADLINE": "20",
            "BRIDGE_TASK__RETRY__ATTEMPTS": "20",
            "BRIDGE_TASK__RETRY__INITIAL": "0.5",
            "BRIDGE_TASK__RETRY__MAXIMUM": "3",
            "BRIDGE_TASK__VISIBILITY_TIMEOUT": "60",
            "BRIDGE_LEDGER__BEAT_SECONDS": "0.5",
            "BRIDGE_LEDGER__DEAD_AFTER": "3",
            "BRIDGE_LEDGER__LOOK_SECONDS": "1",
            "BRIDGE_LOG__JSON_LINES": "true",
        }

    def works(self, kind: str, files: Sequence[Path]) -> Iterator[Work]:
        """Give one message, or one chain, for each file; one run for all."""
        if kind == "bulk":
            run = workflows.stamp_files(files, context=_context, chunk_files=10)
            yield lambda: _places(Bridge().submit(run), len(files))
            return
        build: Any = workflows.stamp_file_job if kind == "single" else workflows.stamp_file
        for file in files:
            yield lambda file=file: [Bridge().submit(build(file, context=_context(file))).id]  # type: ignore[misc]

    def states(self, names: Iterable[str]) -> dict[str, str]:
        """Ask the ledger: of a file in a run, the run."""
        current = runtime.current()
        listed = [name for name in names if "|" not in name]
        known = current.run(current.ledger.watch(listed, ""))
        states = {name: _state(known[name]) if name in known else "unknown" for name in listed}
        for run in {name.partition("|")[0] for name in names if "|" in name}:
            outcomes = [str(outcome.state or "open") for _, outcome in Bridge().run(run).outcomes()]
            states |= {f"{run}|{index}": state for index, state in enumerate(outcomes)}
        return {name: states.get(name, "unknown") for name in names}

    def record(self, name: str) -> str:
        """Show the record of the ledger."""
        current = runtime.current()
        run, _, index = name.partition("|")
        if index:
            return f"{Bridge().run(run).progress()}: {list(Bridge().run(run).outcomes())[int(index)]}"
        return str(current.run(current.ledger.find(name)))


def _places(run: Run, count: int) -> list[str]:
    return [f"{run.id}|{index}" for index in range(count)]


def _context(source: Any) -> str:
    return f"section {Path(source).name[-2:]}"


def _state(outcome: Outcome | None) -> str:
    return "open" if outcome is None else str(outcome.state)


class Plain:
    """Plain Celery: see `tests.chaos.plain`."""

    app = "tests.chaos.plain"

    def environment(self, services: Services) -> dict[str, str]:
        """The three addresses; all else is in the module."""
        return {
            "PLAIN_REDIS_URL": services.redis["BRIDGE_REDIS_URL"],
            "PLAIN_METADATA_URL": services.metadata,
            "PLAIN_ONEXTREE_URL": services.onextree,
        }

    def works(self, kind: str, files: Sequence[Path]) -> Iterator[Work]:
        """Give one message, or one chain, for each file; it has no runs."""
        for file in files:
            if kind == "chain":
                hashed = plain.hash_step.s(str(file))
                steps = chain(hashed, plain.intelligence_step.s(str(file)), plain.stamp_step.s(str(file)))
                yield lambda steps=steps: [str(steps.apply_async().id)]  # type: ignore[misc]
            else:
                yield lambda file=file: [str(plain.stamp_file.delay(str(file)).id)]  # type: ignore[misc]

    def states(self, names: Iterable[str]) -> dict[str, str]:
        """Ask the result backend, where an unknown task is PENDING as a waiting one is."""
        told = {"SUCCESS": "succeeded", "FAILURE": "failed", "REVOKED": "cancelled"}
        return {name: told.get(plain.app.AsyncResult(name).state, "open") for name in names}

    def record(self, name: str) -> str:
        """Show what the result backend has."""
        return str(plain.app.backend.get_task_meta(name))


def inherited() -> dict[str, str]:
    """This process's environment, without what a deployment set in it, with the tests to be found."""
    given: Mapping[str, str] = os.environ
    kept = {name: value for name, value in given.items() if not name.startswith(("BRIDGE_", "CELERY_", "PLAIN_"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))}


def command(side: Side, pool: str, name: str) -> list[str]:
    """How a worker of a side is started."""
    slots = {"prefork": "2", "threads": "4", "solo": "1"}[pool]
    start = [sys.executable, "-m", "celery", "-A", side.app, "worker", "-P", pool, "-c", slots]
    return [*start, "-n", f"{name}@%h", "-l", "INFO", "--without-mingle", "--without-gossip"]
