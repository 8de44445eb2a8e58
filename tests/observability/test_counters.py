"""Counting facts in files: what processes counted stays when they are dead, in one place, and is added up."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from bridge_tasks import correlation, events
from bridge_tasks.observability.counters import METRICS, Counters
from bridge_tasks.observability.exemplars import LONGEST_ID
from bridge_tasks.observability.figures import Timed
from bridge_tasks.observability.files import MANY, ProcessFigures
from tests.observability.scraping import Scrape
from tests.observability.test_logs import FACTS

CHILDREN = 40
FAMILY = """
import os, sys, threading
from bridge_tasks import events
from bridge_tasks.observability.counters import Counters
counters = Counters(sys.argv[1])
cached, done = events.CacheAnswered("S", "op", hit=True), threading.Event()

def count():
    while not done.is_set():
        counters.listen(cached)

busy = threading.Thread(target=count)  # whose lock no child may inherit
busy.start()
for number in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        for _ in range(3):
            counters.listen(events.JobFinished("bridge.x", "id", "succeeded", 0.02, 1, None, None))
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
done.set()
busy.join()
"""


def scraped(directory: Path) -> Scrape:
    registry = CollectorRegistry()
    registry.register(ProcessFigures(directory))
    return Scrape(generate_latest(registry).decode())


@pytest.fixture
def counters(tmp_path: Path) -> Iterator[Counters]:
    counters = Counters(str(tmp_path))
    yield counters
    counters.close()


def test_what_dead_processes_counted_is_kept_in_one_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FAMILY, str(tmp_path), str(CHILDREN)]
    subprocess.run(command, check=True, timeout=60)
    assert len(list(tmp_path.glob("histogram_*.db"))) > CHILDREN

    for _ in range(2):  # a second look finds them in their one file
        told = scraped(tmp_path)
        assert told.sums("bridge_task_duration_seconds_count", "task") == {("bridge.x",): 3 * CHILDREN}
        assert told.value("bridge_task_duration_seconds_sum") == pytest.approx(0.06 * CHILDREN)
        assert len(list(tmp_path.glob("histogram_*.db"))) == 1 < MANY
    assert told.sums("bridge_cache_lookups_total", "hit")["true",] > 0


def test_every_fact_that_is_counted_is_found_again(tmp_path: Path, counters: Counters) -> None:
    counted = [fact for fact, _, _ in FACTS if type(fact) in METRICS]
    assert {type(fact) for fact in counted} == set(METRICS)
    for fact in counted:
        counters.listen(fact)
    told = scraped(tmp_path)
    for kind, metric in METRICS.items():
        name = f"{metric.name}_count" if isinstance(metric, Timed) else f"{metric.name}_total"
        assert told.value(name) == sum(type(fact) is kind for fact in counted), name
        assert set(next(iter(told.sums(name, *metric.labels)))) - {""} or not metric.labels


def test_a_fact_that_is_not_counted_is_no_trouble(tmp_path: Path, counters: Counters) -> None:
    counters.listen(events.CacheVoided("*"))
    assert scraped(tmp_path).text == "# EOF\n"


def test_a_bucket_names_a_job_that_fell_into_it(tmp_path: Path, counters: Counters) -> None:
    for cid, seconds in (("quick", 0.02), ("slow", 3.0), ("endless", 500.0), ("x" * (LONGEST_ID + 1), 0.3)):
        with correlation.bound(cid):
            counters.listen(events.JobFinished("bridge.x", "id", "succeeded", seconds, 1, None, None))
    named = {
        line.partition('le="')[2].partition('"')[0]: line.partition('correlation_id="')[2].partition('"')[0]
        for line in scraped(tmp_path).text.splitlines()
        if " # {" in line
    }
    assert named == {"0.025": "quick", "5.0": "slow", "+Inf": "endless"}


def test_a_file_that_is_being_made_does_not_spoil_a_scrape(tmp_path: Path, counters: Counters) -> None:
    counters.listen(events.NameLookupFailed("host", "gaierror"))
    (tmp_path / "counter_999999999.db").touch()
    (tmp_path / "exemplars_999999999.jsonl").write_text('["bridge_task')
    assert scraped(tmp_path).value("bridge_name_lookups_failed_total") == 1
