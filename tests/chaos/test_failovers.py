"""The master of Redis dies, or gives its place to a replica: all goes on, and what was accepted is done once."""

import asyncio
import threading
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError

from bridge_tasks import events, workflows
from bridge_tasks.app import app
from bridge_tasks.async_bridge import AsyncBridge
from bridge_tasks.bridge import Bridge, Job
from bridge_tasks.checking import found
from bridge_tasks.checking.gathering import gather
from bridge_tasks.resilience.policy.breaker import CircuitState
from bridge_tasks.runtime import Runtime, current
from bridge_tasks.sandbox.faults import Latency
from bridge_tasks.settings import load
from bridge_tasks.worker.circuit_watch import CircuitWatch
from tests.chaos.stage import NOTHING, Stage, staged_on, submitted
from tests.watched import WatchedRedis
from tests.workers import aim, eventually, orchestrating

LEARNT = (1, 2)
"""The first claim has Redis learn its script, and waits twice; so may one beside it, in another thread."""

LONG = {
    "BRIDGE_METADATA__TIMEOUT": "30",
    "BRIDGE_METADATA__DEADLINE": "30",
    "BRIDGE_TASK__DEADLINE": "30",
    "BRIDGE_TASK__VISIBILITY_TIMEOUT": "120",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WatchedRedis]:
    (tmp_path / "redis").mkdir()
    with WatchedRedis(tmp_path / "redis") as started:
        yield started


@pytest.fixture
def stage(tmp_path: Path, inherited: dict[str, str], server: WatchedRedis) -> Iterator[Stage]:
    with staged_on(server, tmp_path, inherited, **LONG) as set_up, orchestrating(set_up.environment):
        yield set_up


def known(job: Job) -> str:
    try:
        return job.state
    except OSError:
        return "nobody knows"


def again(text: str) -> Job | None:
    """Submit as whoever was told that nobody knows does."""
    try:
        return submitted(text)
    except OperationalError:
        return None


def waits(server: WatchedRedis) -> int:
    """How many WAITs the master has run."""
    with server.client() as client:
        return int(client.info("commandstats").get("cmdstat_wait", {"calls": 0})["calls"])


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_whoever_waits_for_a_job_has_its_result_though_the_master_died_meanwhile(
    stage: Stage, server: WatchedRedis, pool: str
) -> None:
    stage.controls.faults.add(Latency(seconds=5, count=1, path="/hash"))
    stage.ready(stage.worker("one", pool))
    job = submitted("long")
    heard: list[object] = []

    async def awaited() -> None:
        async with AsyncBridge() as bridge:
            heard.append(await (await bridge.job(job.id)))

    waiting = threading.Thread(target=lambda: asyncio.run(awaited()), daemon=True)
    waiting.start()
    assert eventually(lambda: stage.controls.records.select(path="/hash"), 20), stage.logs()

    server.kill()
    assert eventually(lambda: server.promoted), server.logs()

    assert job.result(timeout=60)["stamp_id"], stage.logs()
    waiting.join(60)
    assert heard == [job.result(timeout=5)], "the one that awaits it has heard the same"
    assert job.record.runs == 1, stage.logs()
    later = eventually(lambda: again("later"), 20)
    assert later is not None
    assert eventually(lambda: known(later) == "succeeded", 30), stage.logs()
    assert stage.effects() == {"/long": 1, "/later": 1}
    assert eventually(lambda: stage.leftovers() == NOTHING, 20), (stage.leftovers(), stage.logs())


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_goes_on_when_its_master_lives_on_as_a_replica(
    stage: Stage, server: WatchedRedis, pool: str
) -> None:
    worker = stage.ready(stage.worker("one", pool))
    before = server.master
    server.fail_over()
    assert server.master != before

    job = eventually(lambda: again("afterwards"), 30)
    assert job is not None, server.logs()
    assert eventually(lambda: known(job) == "succeeded", 60), (stage.leftovers(), stage.logs())
    assert worker.running
    assert stage.effects() == {"/afterwards": 1}


def test_a_circuit_is_as_it_was_after_a_failover_and_its_changes_are_heard_again(
    stage: Stage, server: WatchedRedis
) -> None:
    del stage
    heard = threading.Event()
    runtime, other = current(), Runtime(load())
    watch, look = CircuitWatch("metadata", runtime, heard.set), CircuitWatch("metadata", other, heard.clear)
    watch.follow()
    breaker = other.metadata.circuit_breaker
    try:
        assert eventually(runtime.circuit_news.listening.is_set, 10)
        other.run(breaker.force_open())
        assert eventually(heard.is_set, 10), "by whom is connected to the first master"
        with server.client() as client:  # a circuit is help: nobody waits for a copy of it, but this test
            assert client.execute_command("WAIT", 2, 5000) == 2
        server.kill()
        assert eventually(lambda: server.promoted), server.logs()

        def open_there() -> bool:
            look.look()
            return look.circuit.state is CircuitState.OPEN

        assert eventually(open_there, 20)
        heard.clear()
        orders = cycle([breaker.reset, breaker.force_open])

        def changed() -> bool:
            other.run(next(orders)())
            return heard.wait(0.2)

        assert eventually(changed, 20), "by whom is connected to the second"
    finally:
        other.close()


def test_a_submission_and_a_claim_wait_for_a_replica_and_nothing_else_does(
    stage: Stage, server: WatchedRedis
) -> None:
    submitted("the first has Redis learn a script, and waits twice")
    began = waits(server)
    jobs = [submitted(f"text {number}", "chain") for number in range(3)]
    assert waits(server) - began == 3, "one for each submission"

    Bridge().submit_all(workflows.stamp_file_job(path, context="all") for path in _files(stage.directory))
    assert waits(server) - began == 3 + 2, "one for the first, and one for the two that go together"

    stage.ready(stage.worker("one"))
    assert all(eventually(lambda job=job: known(job) == "succeeded", 30) for job in jobs), stage.logs()  # type: ignore[misc]
    assert eventually(lambda: stage.leftovers() == NOTHING, 20), (stage.leftovers(), stage.logs())
    assert waits(server) - began - (5 + 3 * 3 + 3 + 1) in LEARNT, "and one for each run of a task"


def test_a_submission_that_no_replica_has_is_refused_where_that_is_wanted(
    stage: Stage, server: WatchedRedis, facts: list[events.Event]
) -> None:
    strict = {**stage.environment, "BRIDGE_SENTINEL__UNCOPIED": "refuse"}
    with orchestrating(strict):
        server.pause_replicas()
        assert load().sentinel.uncopied == "refuse"
        with pytest.raises(OperationalError):
            submitted("alone")
        server.kill()  # the only one that has it
        server.resume_replicas()
        assert eventually(lambda: server.promoted), server.logs()

        job = eventually(lambda: again("alone"), 30)
    assert events.CopiesChanged(enough=False) in facts
    assert job is not None
    stage.ready(stage.worker("one"))
    assert eventually(lambda: known(job) == "succeeded", 30), stage.logs()
    assert stage.effects() == {"/alone": 1}, "it is done once, whatever became of the first try"


def test_what_only_the_dead_master_had_is_gone_and_nobody_was_told_that_it_was_accepted(
    tmp_path: Path, inherited: dict[str, str]
) -> None:
    (tmp_path / "redis").mkdir()
    strict = {**LONG, "BRIDGE_SENTINEL__UNCOPIED": "refuse"}
    with (
        WatchedRedis(tmp_path / "redis", copies=0) as server,  # which takes writes alone
        staged_on(server, tmp_path, inherited, **strict) as stage,
        orchestrating(stage.environment),
    ):
        kept = submitted("kept")
        server.kill_replicas()
        with pytest.raises(OperationalError):
            submitted("gone")
        assert _waiting(stage) == 2, "the master has it"
        server.kill()
        server.start_replicas()
        assert eventually(lambda: server.promoted), server.logs()
        assert eventually(lambda: known(kept) == "waiting", 10)
        assert _waiting(stage) == 1, "its heir has not"

        assert eventually(lambda: again("gone"), 30) is not None
        stage.ready(stage.worker("one"))
        assert eventually(lambda: stage.effects() == {"/kept": 1, "/gone": 1}, 30), stage.logs()


def test_a_submission_that_no_replica_has_is_accepted_otherwise_and_that_is_told(
    stage: Stage, server: WatchedRedis, facts: list[events.Event]
) -> None:
    server.pause_replicas()
    job = submitted("alone")
    assert known(job) == "waiting"
    assert events.WriteUncopied(0, 1) in facts
    assert events.CopiesChanged(enough=False) in facts

    server.resume_replicas()
    number = iter(range(100))

    def told() -> bool:
        submitted(f"more {next(number)}")
        return events.CopiesChanged(enough=True) in facts

    assert eventually(told, 20)
    assert stage.effects() == {}


def test_a_connection_that_was_lost_comes_back_over_our_own_transport(stage: Stage) -> None:
    aim(app)
    with app.connection_for_write() as connection:
        before = connection.transport_cls
        connection.maybe_switch_next()  # as kombu does after each failure
        assert connection.transport_cls == before == "bridge_tasks.broker.sentinel:Transport"
        assert connection.clone().transport_cls == before
        job = submitted("over it")
    with Connection(stage.environment["BRIDGE_REDIS_URL"], transport=before) as bare:
        bare.maybe_switch_next()
        assert bare.transport_cls != before, "without our strategy, it would be kombu's"
    assert job.record.state == "waiting"


def test_check_asks_whoever_is_master(stage: Stage, server: WatchedRedis) -> None:
    del stage
    (before,) = gather(load(), app.conf).redis
    assert (before.port, before.trouble, before.watched, before.copies) == (server.master, "", True, 1)
    assert before.roles == ("jobs", "results", "state")

    server.fail_over()

    def alone() -> bool:
        with server.client() as client:
            client.config_set("min-replicas-to-write", 0)
        facts = gather(load(), app.conf)
        told = {finding.id for finding in found(facts)}
        return facts.redis[0].port == server.master != before.port and "redis-alone" in told

    assert eventually(alone, 20), gather(load(), app.conf)
    assert gather(load(), app.conf).celery.ours


def _waiting(stage: Stage) -> int:
    with stage.redis() as client:
        return int(client.llen("bridge.metadata"))


def _files(directory: Path) -> list[Path]:
    paths = [directory / f"{name}.txt" for name in "abc"]
    for path in paths:
        path.write_text(f"a text of {path.name}")
    return paths
