"""A child that is killed for taking too long is told of twice by Celery, and is one dead letter all the same."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain

from bridge_tasks.bridge import Bridge
from bridge_tasks.errors import JobFailed
from bridge_tasks.runtime import current
from bridge_tasks.sandbox.processes import LocalProcess
from tests import foreign_tasks as foreign
from tests.workers import PATIENCE, database, eventually, flush, orchestrating

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def worker(redis_url: str, tmp_path: Path) -> Iterator[LocalProcess]:
    url = database(redis_url, 8)
    flush(url)
    environment = {"BRIDGE_REDIS_URL": url}
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    process = LocalProcess(
        [
            *(sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "-P", "prefork", "-c", "1"),
            *("-n", "killing@%h", "--without-mingle", "--without-gossip", "--include", "tests.foreign_tasks"),
        ],
        directory=tmp_path,
        name="killing",
        environment={**os.environ, **environment, "PYTHONPATH": paths},
    )
    with process, orchestrating(environment):
        process.wait_ready(lambda: " ready." in process.log.read_text(), PATIENCE)
        yield process


def test_a_hard_time_limit_makes_one_dead_letter_and_one_call_of_the_error_callback(worker: LocalProcess) -> None:
    work = chain(foreign.hang.si("hung"), foreign.echo.si("never"))
    work.link_error(foreign.caught.si("caught"))
    job = Bridge().submit(work, correlation_id="killed")
    (end,) = Bridge().as_completed([job], timeout=PATIENCE)

    assert isinstance(end.error, JobFailed)
    assert end.error.cause == "TimeLimitExceeded"
    assert eventually(lambda: "caught" in foreign.ran("killed")), worker.log.read_text()
    ledger = current().ledger
    (letter,) = current().run(ledger.dead())
    assert (letter.record.task, letter.record.correlation_id) == ("foreign.hang", "killed")

    assert current().run(ledger.replay(letter.record.id))
    assert not current().run(ledger.replay(letter.record.id)), "it is sent once"
    (end,) = Bridge().as_completed([job], timeout=PATIENCE)
    assert isinstance(end.error, JobFailed), "the job went on from there, and ended there"
    (again,) = current().run(ledger.dead())
    assert (again.record.id, again.record.runs, again.record.correlation_id) == (letter.record.id, 2, "killed")
    assert foreign.ran("killed") == ["hung", "caught", "hung"]
