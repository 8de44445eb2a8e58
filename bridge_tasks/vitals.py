"""How the whole of it is: Redis, workers, queues, circuits, dead letters. It looks and leaves no trace.

Written once for both drivers. What cannot be asked is told as such; nothing here raises because something is down.
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from redis.exceptions import RedisError

from bridge_tasks.ledger.commands import run, text
from bridge_tasks.ledger.envelope import PRIORITY_SEPARATOR, PRIORITY_STEPS
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.models.stamping import ServiceHealth
from bridge_tasks.resilience.policy.breaker import CircuitState
from bridge_tasks.resilience.state import circuit_script
from bridge_tasks.resilience.state.circuit_script import Asker, Told
from bridge_tasks.resilience.state.shared_redis import RedisCommands, Script, SharedRedis, StoreUnavailable

_VITALS = Script("vitals", "bridge_tasks.ledger")

Broker = Literal["redis", "rabbitmq", "other"]
"""What carries the messages: the ledger's Redis, a RabbitMQ, or what none of our transports speaks to."""


@dataclass(frozen=True, slots=True)
class QueueVitals:
    """One queue: how many messages wait, and for how many seconds the oldest does (None: unknown, or none).

    Where the broker is a RabbitMQ, this is what the ledger knows: tasks that have not begun. Those that wait for
    their time are among them, and those that a worker has taken ahead.
    """

    name: str
    depth: int
    oldest_seconds: float | None


@dataclass(frozen=True, slots=True)
class SystemHealth:
    """What was seen.

    Attributes:
        redis: whether the Redis with the jobs answers; if not, nothing below is known.
        workers: who gives signs of life, by node name; None where the broker is neither Redis nor RabbitMQ.
        queues: what waits.
        circuits: the state of each service's circuit, as all workers share it; empty if it cannot be asked.
        dead_letters: how many there are.
        services: what the services say themselves, where they were asked.
    """

    redis: bool
    workers: tuple[str, ...] | None = None
    queues: tuple[QueueVitals, ...] = ()
    circuits: Mapping[str, CircuitState] = field(default_factory=dict)
    dead_letters: int = 0
    services: Mapping[str, ServiceHealth] | None = None

    @property
    def waiting(self) -> int:
        """How many messages wait in all queues."""
        return sum(queue.depth for queue in self.queues)

    @property
    def healthy(self) -> bool:
        """Whether jobs that are submitted now can be done."""
        return (
            self.redis
            and self.workers != ()
            and CircuitState.OPEN not in self.circuits.values()
            and all(one.healthy for one in (self.services or {}).values())
        )

    @property
    def troubles(self) -> tuple[str, ...]:
        """What somebody should look at, one line each."""
        if not self.redis:
            return ("Redis is out of reach",)
        found = []
        if self.workers == ():
            found.append(f"{waits_for_workers(self.waiting)}: start one (bridge-tasks worker)")
        found += [
            f"the circuit of {name} is open: its jobs wait (bridge-tasks breaker list)"
            for name, state in self.circuits.items()
            if state is CircuitState.OPEN
        ]
        if self.dead_letters:
            noun = "dead letter" if self.dead_letters == 1 else "dead letters"
            found.append(f"{self.dead_letters} {noun}: see why (bridge-tasks dead list)")
        found += [
            f"{name}: {one.error or one.status}" for name, one in (self.services or {}).items() if not one.healthy
        ]
        return tuple(found)


def waits_for_workers(waiting: int) -> str:
    """Say that nobody works, and what waits for it."""
    if not waiting:
        return "no worker lives"
    return f"{waiting} {'job waits' if waiting == 1 else 'jobs wait'}, and no worker lives"


async def look(
    ledger: RedisCommands,
    shared: SharedRedis,
    *,
    queues: Sequence[str],
    circuits: Mapping[str, Asker],
    broker: Broker,
) -> SystemHealth:
    """Look at everything but the services.

    Args:
        ledger: the Redis with the jobs.
        shared: the Redis with the circuits.
        queues: those that workers read.
        circuits: the names and rules of the services' circuits, by service.
        broker: what carries the messages; of another one than ours, nothing is known of queues and workers.
    """
    known = {service: state for service, asker in circuits.items() if (state := await _circuit(shared, asker))}
    try:
        answer = await run(ledger, _VITALS, (), _asked(queues, PRIORITY_STEPS if broker == "redis" else ()))
    except (RedisError, OSError):
        return SystemHealth(redis=False, circuits=known)
    now, dead, workers, depths = answer
    if broker == "other":
        return SystemHealth(redis=True, circuits=known, dead_letters=int(dead))
    seen = tuple(
        QueueVitals(name, int(depth), (int(now) - int(oldest)) / MICROSECONDS if int(oldest) else None)
        for name, (depth, oldest) in zip(queues, depths, strict=True)
    )
    living = tuple(sorted(text(worker).rpartition(":")[0] for worker in workers))
    return SystemHealth(redis=True, workers=living, queues=seen, circuits=known, dead_letters=int(dead))


def _asked(queues: Sequence[str], steps: Sequence[int]) -> list[Any]:
    return [PRIORITY_SEPARATOR, len(steps), *steps, *queues]


async def _circuit(shared: SharedRedis, asker: Asker) -> CircuitState | None:
    now = time.monotonic()
    try:
        told = await circuit_script.ask(
            shared,
            asker,
            Told(),
            circuit_script.LOOK,
            now=now,
            chance=random.random(),  # noqa: S311 - unused by LOOK
        )
    except StoreUnavailable:
        return None
    return circuit_script.read(told, now).circuit.state
