"""A fleet: one process that forks others and tells, as one line of JSON, what each of them met.

Run as `python -m tests.fleet.members '{"scenario": ...}'`. Members are forked from a process without threads and
start together; each has its own connections, snapshot and listener, as workers of a prefork pool do.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks import events
from bridge_tasks.clients.metadata_stamping_client import API_PREFIX, AsyncMetadataStampingClient
from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.errors import BridgeError, CircuitBreakerError
from bridge_tasks.resilience.circuit_breaker import CircuitBreaker
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig, CircuitState, Outcome, Permit
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.state.push import CircuitListener
from bridge_tasks.resilience.state.put_by import BATCH
from bridge_tasks.resilience.state.redis_circuit import RedisCircuitStore
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.resilience.transport.blocking import blocking_bottom

Plan = dict[str, Any]
Told = dict[str, Any]


def connect(plan: Plan) -> redis.Redis:
    """A client as quick to give up as a worker's, on a machine however busy."""
    return redis.Redis.from_url(plan["redis"], retry=Retry(NoBackoff(), 0), socket_timeout=5.0)


def listener(plan: Plan) -> CircuitListener | None:
    return CircuitListener(lambda: connect(plan)) if plan.get("push") else None


def store(plan: Plan) -> RedisCircuitStore:
    return RedisCircuitStore(
        plan["circuit"], CircuitBreakerConfig(**plan["config"]), SharedRedis(BlockingRedis(connect(plan)))
    )


def client(plan: Plan, url: str) -> AsyncMetadataStampingClient:
    return AsyncMetadataStampingClient(
        base_url=url,
        timeout=10.0,
        retry=RetryConfig(attempts=1),
        circuit_breaker_config=CircuitBreakerConfig(**plan["config"]),
        shared=SharedRedis(BlockingRedis(connect(plan))),
        circuit_news=listener(plan),
        bottom=blocking_bottom(),
    )


def calling(plan: Plan, number: int, start: Callable[[], None]) -> Told:
    """Call the service for some seconds from the first refusal, which is waited for with `patience`.

    The first `poisoned` members have an address of nobody; then it is their stepping aside that is waited for.
    """
    told = {"sent": 0, "good": 0, "refused": 0, "failed": 0, "changes": 0, "asides": 0}

    def listen(event: events.Event) -> None:
        told["changes"] += isinstance(event, events.CircuitChanged)
        told["asides"] += isinstance(event, events.ProcessSteppedAside)
        told["sent"] += isinstance(event, events.RequestFinished)

    events.subscribe(listen)
    poisoned = number < plan.get("poisoned", 0)
    board = connect(plan)

    def aside() -> bool:
        if told["asides"]:
            board.set("aside", 1)
        return "poisoned" in plan and bool(board.exists("aside"))

    service = client(plan, ("http://127.0.0.1:9" if poisoned else plan["service"]) + API_PREFIX)
    start()
    ends = time.monotonic() + plan["seconds"] + plan["patience"]
    waiting = True
    while time.monotonic() < ends:
        try:
            drive(service.health_check())
            told["good"] += 1
        except CircuitBreakerError:
            told["refused"] += 1
        except BridgeError:
            told["failed"] += 1
        if waiting and (told["refused"] or aside()):
            waiting, ends = False, time.monotonic() + plan["seconds"]
        time.sleep(plan["pace"])
    drive(service.circuit_breaker.flush())
    return told


def tripping(plan: Plan, _: int, start: Callable[[], None]) -> Told:
    """Have one call admitted, and fail at the same moment as all others."""
    told = {"changes": 0}

    def listen(event: events.Event) -> None:
        told["changes"] += isinstance(event, events.CircuitChanged)

    events.subscribe(listen)
    breaker = CircuitBreaker("fleet", CircuitBreakerConfig(**plan["config"]), store=store(plan))
    permit = drive(breaker.admit())
    start()
    drive(breaker.settle(permit, Outcome.FAILURE, 0.1))
    return told


SCENARIOS: dict[str, Callable[[Plan, int, Callable[[], None]], Told]] = {"calling": calling, "tripping": tripping}


def fleet(plan: Plan) -> list[Told]:
    """Fork the members, let them start together when all are ready, and collect what they tell."""
    ready_reader, ready_writer = os.pipe()
    gate_reader, gate_writer = os.pipe()
    members: dict[int, int] = {}
    for number in range(plan["members"]):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(gate_writer)

            def start() -> None:
                os.write(ready_writer, b".")
                os.read(gate_reader, 1)

            told = SCENARIOS[plan["scenario"]](plan, number, start)
            os.write(writer, json.dumps(told).encode())
            os._exit(0)
        os.close(writer)
        members[child] = reader
    for _ in members:
        os.read(ready_reader, 1)
    os.close(gate_writer)  # every member's read ends at once
    collected = []
    for child, reader in members.items():
        with os.fdopen(reader, "rb") as answer:
            collected.append(json.loads(answer.read()))
        os.waitpid(child, 0)
    return collected


def killed_probes(plan: Plan) -> list[Told]:
    """Have probes killed one after the other; tell how long the place of each was lost, and how long taken."""
    ours = store(plan)
    config = CircuitBreakerConfig(**plan["config"])
    collected = []
    while ours.view().state is not CircuitState.OPEN:
        permit = drive(ours.admit(plan["lease"]))[0]
        if isinstance(permit, Permit):
            drive(ours.record(permit, Outcome.FAILURE))
    for _ in range(plan["kills"]):
        time.sleep(config.recovery_timeout)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            theirs = store(plan)
            while True:
                asked = time.monotonic()
                if isinstance(drive(theirs.admit(plan["lease"]))[0], Permit):
                    break
                time.sleep(0.005)
            os.write(writer, json.dumps(asked).encode())
            time.sleep(60)
        taken = json.loads(os.read(reader, 64))  # by the same clock: it is the machine's
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        began = time.monotonic()
        while not isinstance(permit := drive(ours.admit(plan["lease"]))[0], Permit):
            time.sleep(0.002)
        free = time.monotonic()
        collected.append({"lost": free - began, "taken": free - taken})
        drive(ours.record(permit, Outcome.NEUTRAL))
        os.close(reader)
        os.close(writer)
    return collected


def killed_flushes(plan: Plan) -> list[Told]:
    """Kill processes in the middle of telling successes, at any moment; tell what the circuit is afterwards."""
    dice = random.Random(plan["kills"])
    for _ in range(plan["kills"]):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            theirs = store(plan)
            for recorded in itertools.count():
                permit = drive(theirs.admit(plan["lease"]))[0]
                if isinstance(permit, Permit):
                    drive(theirs.record(permit, Outcome.SUCCESS))
                if recorded == BATCH:
                    os.write(writer, b".")
        os.read(reader, 1)  # it has told some, and tells on
        time.sleep(dice.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
    ours = store(plan)
    granted = isinstance(drive(ours.admit(plan["lease"]))[0], Permit)
    seen = ours.view()
    return [{"granted": granted, "state": seen.state, "calls": seen.total_calls, "failures": seen.failures}]


def main() -> None:
    """Run the plan that is the one argument."""
    plan = json.loads(sys.argv[1])
    httpx.create_ssl_context(trust_env=False)  # loaded once, before the forks
    match plan["scenario"]:
        case "killed_probes":
            told = killed_probes(plan)
        case "killed_flushes":
            told = killed_flushes(plan)
        case _:
            told = fleet(plan)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
