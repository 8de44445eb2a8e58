"""Redis dies while jobs run, and comes back: every pool goes on working."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from bridge_tasks.bridge import Bridge, Job
from bridge_tasks.sandbox import metadata_service, onextree_service
from bridge_tasks.sandbox.control import controls_of
from bridge_tasks.sandbox.faults import Latency
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.sandbox.server import running
from bridge_tasks.tasks import generate_hash
from tests.tasks.sending import inline
from tests.workers import database, eventually, orchestrating

POOLS = ("prefork", "threads", "solo")


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis(append_only=True) as started:
        yield started


def worker(pool: str, environment: dict[str, str], directory: Path) -> LocalProcess:
    command = [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "--pool", pool, "-c", "2"]
    return LocalProcess(
        [*command, "-n", f"{pool}@%h", "--without-mingle", "--without-gossip"],
        directory=directory,
        name=pool,
        environment=environment,
    )


def submitted(bridge: Bridge, text: str) -> Job | None:
    """A producer's connections die with Redis as well: it gets an error, and tries again."""
    try:
        return bridge.submit(generate_hash.s(content=inline(text)))
    except OperationalError:
        return None


def ended_well(job: Job) -> bool:
    try:
        return job.state == "succeeded"
    except OSError:
        return False


def test_every_pool_works_on_after_redis_was_killed_in_the_middle_of_jobs(
    server: PrivateRedis, tmp_path: Path, inherited: dict[str, str]
) -> None:
    services = metadata_service.create_app("service", ":memory:"), onextree_service.create_app("service", tmp_path)
    with ExitStack() as stack:
        metadata, onextree = (stack.enter_context(running(app)) for app in services)
        records = controls_of(services[0]).records
        environments = {
            pool: {
                **inherited,
                "BRIDGE_REDIS_URL": database(server.url, number),
                "BRIDGE_METADATA__URLS": metadata,
                "BRIDGE_ONEXTREE__URLS": onextree,
            }
            for number, pool in enumerate(POOLS)
        }
        workers = {pool: stack.enter_context(worker(pool, environments[pool], tmp_path)) for pool in POOLS}
        for pool, process in workers.items():
            process.wait_ready(lambda process=process: " ready." in process.log.read_text(), 30)  # type: ignore[misc]
            with orchestrating(environments[pool]):
                controls_of(services[0]).faults.add(Latency(seconds=1.5, count=2, path="/hash"))
                for text in "abcd":
                    Bridge().submit(generate_hash.s(content=inline(f"{pool} {text}")))

        assert eventually(lambda: records.counts()["in_flight"] >= len(POOLS)), (
            "each pool is in the middle of a job"
        )
        server.kill()
        assert eventually(lambda: records.counts()["in_flight"] == 0), "the jobs end while there is no Redis"
        for pool in ("prefork", "threads"):  # solo is in its job until it has told how it ended
            assert eventually(lambda pool=pool: "Connection" in workers[pool].log.read_text())  # type: ignore[misc]
        server.start()

        for pool in POOLS:
            with orchestrating(environments[pool]):
                job = eventually(lambda: submitted(Bridge(), "afterwards"), 20)
                assert job, f"{pool}: nothing can be submitted"
                assert eventually(lambda job=job: ended_well(job), 60), workers[pool].log.read_text()  # type: ignore[misc]
