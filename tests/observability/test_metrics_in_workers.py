"""Figures of real workers that are killed meanwhile: as the ledger has it, as the services saw it."""

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis

from bridge_tasks import runtime
from bridge_tasks.bridge import Job
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.exposition import FleetFigures
from bridge_tasks.ledger import JobLedger, JobRecord
from bridge_tasks.sandbox.faults import Latency, Status
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.settings import LedgerSettings
from tests.chaos.stage import Stage, staged, submitted
from tests.never_suspending import finished
from tests.observability.scraping import OPEN_METRICS, addresses, promtool, scrape
from tests.workers import eventually, orchestrating

JOBS = 24


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "CELERY_"))}
    with (
        staged(
            tmp_path, inherited, BRIDGE_METRICS__PORT="0", BRIDGE_TASK__PAUSE="", TMPDIR=str(tmp_path)
        ) as set_up,
        orchestrating(set_up.environment),
    ):
        yield set_up


def records(stage: Stage, jobs: list[Job]) -> list[JobRecord]:
    """What the ledger knows of every task of some jobs."""
    with redis.Redis.from_url(stage.server.url) as client:
        ledger = JobLedger(BlockingRedis(client), LedgerSettings())
        steps = [step for job in jobs for step, _ in job.record.steps]
        return list(finished(ledger.records(steps or [job.id for job in jobs])).values())


def children(worker: LocalProcess) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()]


def ended_more_than(count: int, url: str) -> bool:
    return scrape(url).value("bridge_fleet_tasks_ended_total") > count


def examples(url: str) -> list[str]:
    """The lines that name a job."""
    return [line for line in scrape(url, **OPEN_METRICS).text.splitlines() if " # {" in line]


def test_figures_are_exact_whoever_was_killed(stage: Stage) -> None:
    prefork, threads = (stage.ready(stage.worker(pool, pool)) for pool in ("prefork", "threads"))
    url = addresses(stage.server.url)["prefork"]
    stage.controls.faults.add(Latency(seconds=0.03))
    jobs = [submitted(f"text-{number}", "chain") for number in range(JOBS)]

    victims: set[int] = set()
    for share in (4, 12, 24):
        assert eventually(partial(ended_more_than, share, url))
        victims.add(victim := children(prefork)[0])
        os.kill(victim, signal.SIGKILL)
        assert promtool("check", "metrics", told=scrape(url).text) == ""
    threads.kill()
    assert eventually(lambda: all(job.state == "succeeded" for job in jobs), 60), stage.logs()
    assert eventually(lambda: scrape(url).sums("bridge_fleet_tasks_open", "state") == {}), scrape(url).text

    told = scrape(url)
    assert promtool("check", "metrics", told=told.text) == ""
    known = Counter((record.task, record.state) for record in records(stage, jobs))
    assert told.sums("bridge_fleet_tasks_ended_total", "task", "state") == known
    assert known["bridge.create_stamp", "succeeded"] == len(stage.effects()) == JOBS
    assert told.value("bridge_fleet_task_runs_total") == sum(record.runs for record in records(stage, jobs))
    assert eventually(lambda: scrape(url).value("bridge_fleet_workers") == 1)
    assert eventually(lambda: list(addresses(stage.server.url)) == ["prefork"])
    # A child that was killed before it had said that it is up, Celery misses when it looks for such: every 5 s.
    assert eventually(lambda: victims.isdisjoint(children(prefork)))
    # What the dead children counted is there: of the runs that ended, only the other worker's are missing.
    counted = told.sums("bridge_task_duration_seconds_count", "outcome")["succeeded",]
    assert 0 < counted <= told.value("bridge_fleet_task_runs_total")


def test_requests_are_counted_as_the_services_count_them(stage: Stage) -> None:
    stage.controls.faults.add(
        Status(code=503, path="/hash", method="POST", count=2),
        Status(code=422, path="/stamp", method="POST", count=2),
    )
    for pool in ("prefork", "threads"):
        stage.ready(stage.worker(pool, pool))
    jobs = [submitted(f"text-{number}", "chain") for number in range(8)]
    assert eventually(lambda: all(job.state in ("succeeded", "failed") for job in jobs), 60), stage.logs()

    told = [scrape(url) for url in addresses(stage.server.url).values()]
    for operation, path in (("generate_hash", "/hash"), ("create_stamp", "/stamp")):
        asked = Counter(
            str(one.status) for one in stage.controls.records.select(path=path) if one.method == "POST"
        )
        counted: Counter[str] = Counter()
        for one in told:
            by = one.sums("bridge_request_duration_seconds_count", "operation", "result")
            counted += Counter({result: int(n) for (name, result), n in by.items() if name == operation})
        assert counted == asked, operation
    (one, other) = told
    assert one.sums("bridge_fleet_tasks_ended_total", "task", "state") == other.sums(
        "bridge_fleet_tasks_ended_total", "task", "state"
    )
    assert one.value("bridge_fleet_dead_letters") == 2 == sum(job.state == "failed" for job in jobs)
    assert one.value("bridge_fleet_task_retries_total") == 2
    runs = sum(each.value("bridge_task_duration_seconds_count") for each in told)
    assert runs == one.value("bridge_fleet_task_runs_total")
    lines = [line for url in addresses(stage.server.url).values() for line in examples(url)]
    failed = next(
        line for line in lines if line.startswith("bridge_fleet_tasks_ended") and 'state="failed"' in line
    )
    assert any(f'correlation_id="{job.correlation_id}"' in failed for job in jobs if job.state == "failed")
    slow = [line for line in lines if line.startswith("bridge_task_duration_seconds_bucket")]
    assert all(any(f'"{job.correlation_id}"' in line for job in jobs) for line in slow)
    assert slow


def test_a_worker_takes_its_files_and_its_address_along(stage: Stage) -> None:
    worker = stage.ready(stage.worker("solo", "solo"))
    (url,) = addresses(stage.server.url).values()
    assert url.startswith("http://127.0.0.1:")
    submitted("whatever").result(30)
    assert scrape(url).sums("bridge_task_duration_seconds_count", "outcome") == {("succeeded",): 1}

    (directory,) = set(re.findall(r"/\S*bridge-metrics-[^/]+", Path(f"/proc/{worker.pid}/maps").read_text()))
    assert Path(directory).stat().st_mode & 0o077 == 0
    worker.terminate(20)
    assert not Path(directory).exists()
    assert addresses(stage.server.url) == {}


def test_without_redis_only_that_is_told(stage: Stage) -> None:
    stage.server.stop()
    (told,) = FleetFigures(runtime.current).collect()
    assert [(sample.name, sample.value) for sample in told.samples] == [("bridge_fleet_ledger_up", 0.0)]
