"""A campaign: jobs are submitted while workers and Redis are killed and services misbehave. It judges nothing.

All processes are started from one thread, as the kernel ties them to it; submitters are threads of their own.
Chance is one seeded generator per concern, so that one seed is one plan (the machine's own timing is not).
"""

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.chaos.sides import AWAY, KINDS, Services, Side, Work, command, inherited
from tests.rabbit_server import PrivateRabbit
from tests.watched import WatchedRedis

_TICK = 0.05
_SUBMITTERS = 3
_READY_SECONDS = 30.0
_RUN = 25
"""Files of a run: three chunks of it."""

_WORSE: tuple[dict[str, Any], ...] = (
    {"kind": "latency", "seconds": 0.5, "jitter": 0.5, "probability": 0.5},
    {"kind": "late", "seconds": 2.5, "probability": 0.1},
    {"kind": "status", "code": 500, "probability": 0.5},
    {"kind": "status", "code": 503, "retry_after": 1, "probability": 0.5},
    {"kind": "status", "code": 500, "after_work": True, "probability": 0.5},
    {"kind": "garbage_json", "probability": 0.5},
    {"kind": "garbage_json", "after_work": True, "probability": 0.5},
    {"kind": "wrong_content_type", "probability": 0.5},
    {"kind": "status_error", "probability": 0.5},
    {"kind": "reset", "after_work": True, "probability": 0.5},
    {"kind": "disconnect", "probability": 0.5},
    {"kind": "truncate", "probability": 0.5},
    {"kind": "hang", "probability": 0.2},
    {"kind": "hang", "after_work": True, "probability": 0.2},
    {"kind": "refuse", "seconds": 1.0},
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything.

    Attributes:
        jobs: how many are submitted.
        kills: how often a worker, or a child of one, is killed.
        restarts: how often Redis is killed and started again.
        pace: seconds between two kills, on average.
        pools: one worker of each.
        calm: whether the services behave.
        sentinel: whether Redis has replicas and sentinels: then its master is killed, and another one takes over.
        fsync: how Redis writes its append-only file.
        broker: what carries the messages: Redis, or a RabbitMQ, which is killed as often as Redis is.
        seed: of all chance.
    """

    jobs: int
    kills: int
    restarts: int
    pace: float = 2.5
    pools: tuple[str, ...] = ("prefork", "threads", "prefork", "threads")
    calm: bool = False
    sentinel: bool = False
    fsync: Literal["always", "everysec"] = "always"
    broker: Literal["redis", "amqp"] = "redis"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job whose submission was confirmed."""

    name: str
    kind: str
    path: str


@dataclass(slots=True)
class Counts:
    """What was done to them."""

    kills: int = 0
    children: int = 0
    restarts: int = 0
    rabbit_restarts: int = 0
    failovers: int = 0
    faults: int = 0
    resubmitted: int = 0


@dataclass(slots=True)
class Campaign:
    """One campaign, its processes, and what came of it.

    Args:
        plan: how much of everything.
        side: whom it is waged against.
        directory: for logs and the services' database.
    """

    plan: Plan
    side: Side
    directory: Path
    counts: Counts = field(default_factory=Counts)
    accepted: list[Accepted] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)
    _server: PrivateRedis | WatchedRedis = field(init=False)
    _rabbit: PrivateRabbit | None = None
    _services: Services = field(init=False)
    _http: httpx.Client = field(init=False)
    _workers: list[LocalProcess] = field(default_factory=list)
    _ready_from: dict[str, int] = field(default_factory=dict)

    def set_up(self) -> Services:
        """Start Redis and the services; workers come with `wage`."""
        self._server = self._redis()
        self._stack.enter_context(self._server)
        if self.plan.broker == "amqp":
            self._rabbit = self._stack.enter_context(PrivateRabbit())
        self._http = self._stack.enter_context(httpx.Client(timeout=30))
        ports = ("--metadata-port", "0", "--onextree-port", "0", "--database", str(self.directory / "stamps.db"))
        sandbox = self._stack.enter_context(
            LocalProcess(
                [sys.executable, "-m", "bridge_tasks.sandbox", *ports],
                directory=self.directory,
                name="services",
                environment=inherited(),
            )
        )
        sandbox.wait_ready(lambda: "onextree_url" in sandbox.tail(), 30)
        urls = json.loads(sandbox.tail().splitlines()[-1])
        files = self.directory / "files"
        files.mkdir()
        broker = {"BRIDGE_BROKER_URL": self._rabbit.url} if self._rabbit else {}
        redis = {**self._server.environment, **broker}
        self._services = Services(redis, urls["metadata_url"], urls["onextree_url"], files)
        return self._services

    def _redis(self) -> PrivateRedis | WatchedRedis:
        if not self.plan.sentinel:
            return PrivateRedis(append_only=True, fsync=self.plan.fsync)
        (self.directory / "redis").mkdir()
        return WatchedRedis(self.directory / "redis", fsync=self.plan.fsync)

    def wage(self) -> None:
        """Submit all jobs while everything that can die does; returns when all is well again."""
        environment = {**inherited(), **self.side.environment(self._services)}
        self._workers = [
            LocalProcess(
                command(self.side, pool, f"w{number}"),
                directory=self.directory,
                name=f"{pool}-{number}",
                environment=environment,
            )
            for number, pool in enumerate(self.plan.pools)
        ]
        for worker in self._workers:
            self._stack.callback(worker.kill)
            self._start(worker)
        submitters = self._submitters()
        deeds = [self._killing(), self._restarting()]
        if not self.plan.calm:
            deeds.append(self._misbehaving(submitters))
        while deeds:
            for deed in list(deeds):
                if next(deed, None) is None:
                    deeds.remove(deed)
            time.sleep(_TICK)
        for submitter in submitters:
            submitter.join()
        self._lift()
        until = time.monotonic() + _READY_SECONDS
        while not all(self._is_ready(worker) for worker in self._workers) and time.monotonic() < until:
            time.sleep(_TICK)  # one that has not given a sign of life yet would be taken for one that is dead

    def effects(self) -> dict[str, int]:
        """By file path, how often the service stamped it."""
        told = self._http.get(f"{self._services.metadata}/_sandbox/effects").json()
        assert not told["forgotten"]
        return {one["file_path"]: one["times"] for one in told["effects"]}

    def close(self) -> None:
        """End all processes."""
        self._stack.close()

    @property
    def living(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    def retire(self) -> None:
        """Have the workers end in good order."""
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self._workers:
            worker.terminate(grace=30)

    # What is done, in steps: each yields while it waits for its turn.

    def _killing(self) -> Iterator[bool]:
        chance = random.Random(self.plan.seed + 1)
        while self.counts.kills < self.plan.kills:
            yield from _pause(chance.uniform(0.2, 1.8) * self.plan.pace)
            victims = [worker for worker in self._workers if self._is_ready(worker)]
            if not victims:
                continue
            victim = chance.choice(victims)
            children = _children(victim.pid) if victim.name.startswith("prefork") else []
            if children and chance.random() < 0.25:
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(children), signal.SIGKILL)
                self.counts.children += 1
            else:
                victim.kill()
                self._start(victim)
            self.counts.kills += 1

    def _restarting(self) -> Iterator[bool]:
        chance = random.Random(self.plan.seed + 2)
        rest = self.plan.kills * self.plan.pace / (self.plan.restarts + 1)
        for _ in range(self.plan.restarts):
            yield from _pause(chance.uniform(0.8, 1.2) * rest)
            self._server.kill()
            if isinstance(self._server, WatchedRedis):
                while not self._server.promoted:
                    yield True
                self.counts.failovers += 1
            yield from _pause(chance.uniform(0.2, 3.0))
            self._server.start()
            self.counts.restarts += 1
            if self._rabbit is not None:
                yield from self._restart_rabbit(self._rabbit, chance.uniform(0.2, 3.0))

    def _restart_rabbit(self, rabbit: PrivateRabbit, away: float) -> Iterator[bool]:
        """Kill RabbitMQ too; it takes seconds to come back, and workers are killed meanwhile."""
        yield from _pause(away)
        rabbit.kill()
        yield from _pause(away)
        rabbit.begin()
        while not rabbit.answers():
            yield True
        self.counts.rabbit_restarts += 1

    def _misbehaving(self, submitters: Sequence[threading.Thread]) -> Iterator[bool]:
        chance = random.Random(self.plan.seed + 3)
        while self.counts.kills < self.plan.kills or any(one.is_alive() for one in submitters):
            url = chance.choice([self._services.metadata, self._services.metadata, self._services.onextree])
            self._order(url, [chance.choice(_WORSE) for _ in range(chance.randint(1, 2))])
            self.counts.faults += 1
            yield from _pause(chance.uniform(1, 4))
            self._lift()
            yield from _pause(chance.uniform(1, 4))

    def _submitters(self) -> list[threading.Thread]:
        files = [self._services.files / f"{number:06}" for number in range(self.plan.jobs)]
        for file in files:
            file.write_text(f"file {file.name} of campaign {self.plan.seed}")
        units = list(_units(files))
        pause = 0.9 * self.plan.kills * self.plan.pace / len(units) * _SUBMITTERS

        def submit(share: Sequence[tuple[str, list[Path]]]) -> None:
            began = time.monotonic()
            for count, (kind, some) in enumerate(share):
                while time.monotonic() < began + count * pause:
                    time.sleep(_TICK)
                names = [name for work in self.side.works(kind, some) for name in self._insisted(work)]
                self.accepted += [Accepted(name, kind, str(file)) for name, file in zip(names, some, strict=True)]

        shares = [units[first::_SUBMITTERS] for first in range(_SUBMITTERS)]
        threads = [threading.Thread(target=submit, args=(share,), daemon=True) for share in shares]
        for thread in threads:
            thread.start()
        return threads

    def _insisted(self, work: Work) -> list[str]:
        """Submit until it is confirmed: after an error nobody knows whether the job was accepted."""
        while True:
            try:
                return work()
            except AWAY:
                self.counts.resubmitted += 1
                time.sleep(0.2)

    def _start(self, worker: LocalProcess) -> None:
        self._ready_from[worker.name] = worker.log.stat().st_size if worker.log.exists() else 0
        worker.start()

    def _is_ready(self, worker: LocalProcess) -> bool:
        """Whether it consumes; one that has ended by itself is started again."""
        if not worker.running:
            self._start(worker)
            return False
        with worker.log.open("rb") as log:
            log.seek(self._ready_from[worker.name])
            return b" ready." in log.read()

    def _order(self, url: str, faults: list[dict[str, Any]]) -> None:
        self._insist(lambda: self._http.post(f"{url}/_sandbox/faults", json=faults))

    def _lift(self) -> None:
        for url in (self._services.metadata, self._services.onextree):
            self._insist(lambda url=url: self._http.delete(f"{url}/_sandbox/faults"))  # type: ignore[misc]

    @staticmethod
    def _insist(ask: Callable[[], httpx.Response]) -> None:
        """Ask until it is answered: a service may refuse connections just now."""
        while True:
            with suppress(httpx.TransportError):
                ask().raise_for_status()
                return
            time.sleep(_TICK)


def _units(files: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Deal the files out: as many to each kind, those of a run together."""
    for first in range(0, len(files), _RUN * len(KINDS)):
        for number, kind in enumerate(KINDS):
            some = list(files[first + number * _RUN : first + (number + 1) * _RUN])
            if some and kind == "bulk":
                yield kind, some
            else:
                yield from ((kind, [file]) for file in some)


def _pause(seconds: float) -> Iterator[bool]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield True


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
