"""What a worker process does besides running tasks: its pool, its log, its end."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridge_tasks.worker import signals
from tests.tasks.sending import done, inline
from tests.workers import PATIENCE, Pool, eventually


@pytest.mark.parametrize("green", ["gevent", "eventlet"])
def test_a_green_pool_is_refused_with_a_reason(green: str, redis_url: str, tmp_path: Path) -> None:
    # Stands in for the library, which need not be installed: Celery knows a pool by its class's module.
    (tmp_path / f"{green}.py").write_text(
        "from celery.concurrency.solo import TaskPool\nclass Pool(TaskPool): pass\n"
    )
    worker = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "-P", "custom"],
        env={
            **os.environ,
            "BRIDGE_REDIS_URL": redis_url,
            "CELERY_CUSTOM_WORKER_POOL": f"{green}:Pool",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert worker.returncode == 1
    assert f"does not run under -P {green}: use prefork, threads or solo" in worker.stderr


@pytest.mark.parametrize("pool", ["prefork", "thread", "solo"])
def test_the_other_pools_are_let_in(pool: str) -> None:
    signals._refuse_green_pools(
        SimpleNamespace(pool_cls=type("Pool", (), {"__module__": f"celery.concurrency.{pool}"}))
    )


def test_a_job_is_one_line_in_the_log_and_celery_does_not_say_it_again(prefork: Pool) -> None:
    done("generate_hash", cid="one-line", content=inline("hello"))

    told = eventually(lambda: [line for line in prefork.log().splitlines() if "one-line" in line])
    assert len(told) == 1
    (line,) = prefork.lines(correlation_id="one-line")
    assert (line["event"], line["task"], line["subject"]) == (
        "job succeeded",
        "bridge.generate_hash",
        "inline (5 bytes)",
    )
    assert prefork.log().count(line["task_id"]) == 1


def test_the_pretty_log_has_the_same_line_without_colours(solo: Pool) -> None:
    done("generate_hash", cid="pretty-line", content=inline("hello"))

    (line,) = eventually(lambda: [line for line in solo.log().splitlines() if "pretty-line" in line])
    assert "job succeeded" in line
    assert "correlation_id=pretty-line" in line
    assert "\x1b" not in line


def test_a_child_that_is_told_to_end_is_replaced_and_closes_what_it_opened(prefork: Pool) -> None:
    before = prefork.children()
    for _ in range(4):
        done("generate_hash", content=inline("hello"))
    os.kill(before[0], signal.SIGTERM)

    assert eventually(lambda: before[0] not in prefork.children() and len(prefork.children()) == 2)
    assert done("generate_hash", content=inline("hello"))["file_size_bytes"] == 5
