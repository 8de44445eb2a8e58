"""Whom a campaign is waged against: ours, or plain Celery; each says how it works, submits and ends.

A side knows nothing of who is killed when. The next kind of job (a bulk run) is one more entry of `KINDS`.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from celery import chain
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from bridge_tasks import runtime, workflows
from bridge_tasks.bridge import Bridge
from bridge_tasks.ledger import Outcome
from bridge_tasks.models.content import InlineContent
from tests.chaos import plain
from tests.tasks.sending import inline

ROOT = Path(__file__).parents[2]

AWAY = (OperationalError, RedisError, OSError)
"""What a submitter is told when Redis is away; it tries again with the same work."""


@dataclass(frozen=True, slots=True)
class Services:
    """Where everything is."""

    redis_url: str
    metadata: str
    onextree: str


class Side(Protocol):
    """One way to do the same jobs."""

    app: str

    def environment(self, services: Services) -> dict[str, str]:
        """What workers, and the submitter's own process, are told."""

    def submit(self, kind: str, text: str) -> str:
        """Submit a job, and return its id; raises one of `AWAY`."""

    def states(self, names: Iterable[str]) -> dict[str, str]:
        """Say how jobs stand: `succeeded`, `failed`, `cancelled`, another state, or `unknown`."""

    def record(self, name: str) -> str:
        """Tell all that is known of a job, for the report of a failure."""


def _single(text: str) -> Any:
    content = InlineContent.model_validate(inline(text))
    return workflows.stamp_file_job(content, context=text[:2], file_path=f"/{text}")


def _chain(text: str) -> Any:
    content = InlineContent.model_validate(inline(text))
    return workflows.stamp_file(content, context=text[:2], file_path=f"/{text}")


KINDS: dict[str, Callable[[str], Any]] = {"single": _single, "chain": _chain}
"""What is submitted about a text, by kind. All kinds are submitted equally often."""


class Ours:
    """`bridge_tasks`, with short times, so that a death is noticed within seconds."""

    app = "bridge_tasks.app"

    def environment(self, services: Services) -> dict[str, str]:
        """The settings; what is not here is as it comes."""
        return {
            "BRIDGE_REDIS_URL": services.redis_url,
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

    def submit(self, kind: str, text: str) -> str:
        """Submit a job."""
        return str(Bridge().submit(KINDS[kind](text)).id)

    def states(self, names: Iterable[str]) -> dict[str, str]:
        """Ask the ledger."""
        current = runtime.current()
        listed = list(names)
        known = current.run(current.ledger.watch(listed, ""))
        return {name: _state(known[name]) if name in known else "unknown" for name in listed}

    def record(self, name: str) -> str:
        """Show the record of the ledger."""
        current = runtime.current()
        return str(current.run(current.ledger.find(name)))


def _state(outcome: Outcome | None) -> str:
    return "open" if outcome is None else str(outcome.state)


class Plain:
    """Plain Celery: see `tests.chaos.plain`."""

    app = "tests.chaos.plain"

    def environment(self, services: Services) -> dict[str, str]:
        """The three addresses; all else is in the module."""
        return {
            "PLAIN_REDIS_URL": services.redis_url,
            "PLAIN_METADATA_URL": services.metadata,
            "PLAIN_ONEXTREE_URL": services.onextree,
        }

    def submit(self, kind: str, text: str) -> str:
        """Submit a job."""
        if kind == "single":
            return str(plain.stamp_file.delay(text).id)
        steps = chain(plain.hash_step.s(text), plain.intelligence_step.s(text), plain.stamp_step.s(text))
        return str(steps.apply_async().id)

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
