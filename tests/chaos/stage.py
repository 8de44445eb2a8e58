"""A stage for one killing: a Redis of its own, both services, and workers that may be told where to die.

The services live in this process, so their records survive whatever is done to workers. Times are short, so that
a death is noticed within seconds; nothing else is changed.
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from fastapi import FastAPI

from bridge_tasks import workflows
from bridge_tasks.bridge import Bridge, Job
from bridge_tasks.models.content import InlineContent
from bridge_tasks.places import Place
from bridge_tasks.sandbox import metadata_service, onextree_service
from bridge_tasks.sandbox.control import Controls, controls_of
from bridge_tasks.sandbox.metadata_service import effects_of
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.sandbox.server import running
from tests.tasks.sending import inline
from tests.watched import WatchedRedis
from tests.workers import QUICK, eventually

ROOT = Path(__file__).parents[2]

DEAD_AFTER = 2.0
SHORT = {
    "BRIDGE_LEDGER__BEAT_SECONDS": "0.25",
    "BRIDGE_LEDGER__DEAD_AFTER": str(DEAD_AFTER),
    "BRIDGE_LEDGER__LOOK_SECONDS": "0.5",
    "BRIDGE_LOG__JSON_LINES": "true",
}

NOTHING: dict[str, Any] = {"keys": [], "queues": {}}
"""What a stage leaves when all is done."""

INDEXES = (
    "bridge:outbox",
    "bridge:open:*",
    "bridge:running:*",
    "bridge:unacked*",
    "bridge:worker:*",
    "bridge:left:*",
    "unacked*",
)


@dataclass(frozen=True, slots=True)
class Stage:
    """What is there, and where workers write their logs."""

    server: PrivateRedis | WatchedRedis
    metadata: FastAPI
    environment: dict[str, str]
    directory: Path
    started: list[LocalProcess] = field(default_factory=list)

    @property
    def controls(self) -> Controls:
        """The faults and the records of the stamping service."""
        return controls_of(self.metadata)

    def redis(self) -> "redis.Redis":
        """A client of the ledger's Redis."""
        place = self.server.place if isinstance(self.server, WatchedRedis) else Place(self.server.url)
        return place.client(decode_responses=True)

    def effects(self) -> dict[str, int]:
        """What the stamping service has really done: file paths, and how often each was stamped."""
        return {one["file_path"]: one["times"] for one in effects_of(self.metadata).files()}

    def worker(
        self, name: str, pool: str = "threads", *, dies: str | None = None, alone: bool = False, slots: int = 2
    ) -> LocalProcess:
        """A worker, not started; it dies at the point `dies`, with its children unless `alone`."""
        told = {"CHAOS_POINT": dies, "CHAOS_MARK": str(self.directory / f"{name}.died")} if dies else {}
        victim = {"CHAOS_VICTIM": "process" if alone else "group"}
        command = [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "-I", "tests.chaos.dying"]
        process = LocalProcess(
            [*command, "-P", pool, "-c", str(slots), "-n", f"{name}@%h", "--without-mingle", "--without-gossip"],
            directory=self.directory,
            name=name,
            environment={**self.environment, **told, **victim},
        )
        self.started.append(process)
        return process

    def ready(self, worker: LocalProcess) -> LocalProcess:
        """Start a worker, and wait until it consumes."""
        worker.start()
        worker.wait_ready(lambda: " ready." in worker.log.read_text(), 30)
        return worker

    def leftovers(self) -> dict[str, Any]:
        """What is in the ledger's indexes and queues though nothing is to be done; living workers apart."""
        with self.redis() as client:
            living = {f"bridge:worker:{name}" for name in client.smembers("bridge:workers")}
            keys = {key for pattern in INDEXES for key in client.scan_iter(pattern)} - living
            queues = {queue: client.llen(queue) for queue in client.smembers("bridge:queues")}
            return {"keys": sorted(keys), "queues": {name: length for name, length in queues.items() if length}}

    def logs(self) -> str:
        """The ends of all logs, for a test that failed."""
        return "\n".join(f"== {one.name}\n{one.tail()}" for one in self.started)


@contextmanager
def staged(directory: Path, inherited: Mapping[str, str], **more: str) -> Iterator[Stage]:
    """Set a stage for the length of a `with` block."""
    with PrivateRedis(append_only=True) as server, staged_on(server, directory, inherited, **more) as stage:
        yield stage


@contextmanager
def staged_on(
    server: PrivateRedis | WatchedRedis, directory: Path, inherited: Mapping[str, str], **more: str
) -> Iterator[Stage]:
    """Set a stage on a Redis that is there."""
    with ExitStack() as stack:
        metadata = metadata_service.create_app("service")
        onextree = onextree_service.create_app("service", directory)
        urls = [stack.enter_context(running(app)) for app in (metadata, onextree)]
        environment = {
            **inherited,
            **QUICK,
            **SHORT,
            "PYTHONPATH": os.pathsep.join([str(ROOT), inherited.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            **server.environment,
            "BRIDGE_CONTENT__ROOTS": str(directory),
            "BRIDGE_METADATA__URLS": urls[0],
            "BRIDGE_ONEXTREE__URLS": urls[1],
            **more,
        }
        stage = Stage(server, metadata, environment, directory)
        try:
            yield stage
        finally:
            for worker in stage.started:
                worker.kill()


def submitted(text: str, kind: str = "single") -> Job:
    content = InlineContent.model_validate(inline(text))
    build = workflows.stamp_file if kind == "chain" else workflows.stamp_file_job
    return Bridge().submit(build(content, context=text, file_path=f"/{text}"))


def died(worker: LocalProcess) -> bool:
    return eventually(lambda: worker.returncode == -signal.SIGKILL, 20)


def done_once(stage: Stage, job: Job, text: str) -> None:
    """The job has succeeded, the service has done it once, and the ledger holds nothing open."""
    assert eventually(lambda: job.state == "succeeded", 30), (job.record, stage.leftovers(), stage.logs())
    assert stage.effects() == {f"/{text}": 1}
    assert eventually(lambda: stage.leftovers() == NOTHING, 20), (stage.leftovers(), stage.logs())


def done_by_an_heir(stage: Stage, point: str, pool: str = "threads", kind: str = "single") -> None:
    """A worker that is killed at a point of a job leaves it to another, which does it once."""
    doomed = stage.ready(stage.worker("doomed", pool, dies=point))

    job = submitted("whole", kind)
    assert died(doomed), stage.logs()
    stage.ready(stage.worker("heir", pool))

    done_once(stage, job, "whole")
