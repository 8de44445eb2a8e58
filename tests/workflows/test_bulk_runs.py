"""Bulk runs on real workers: watched, cancelled, resumed, with files that fail and processes that are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery.events.state import State

from bridge_tasks import Bridge, runs, workflows
from bridge_tasks.errors import InvalidRequest, JobUnknown
from bridge_tasks.ledger.packing import FileOutcome
from bridge_tasks.runs import Run
from bridge_tasks.runtime import current
from bridge_tasks.sandbox.processes import LocalProcess
from tests.workers import PATIENCE, QUICK, Pool, Sandbox, database, eventually, flush, orchestrating

SUBMITTER = """
import os, sys
from bridge_tasks import runs, workflows
paths = sorted(os.path.join(sys.argv[1], name) for name in os.listdir(sys.argv[1]))
def die(run, files):
    if files >= int(sys.argv[2]):
        print(run.id, flush=True)
        os.kill(os.getpid(), 9)
runs.submit(workflows.stamp_files(paths, context="tour", chunk_files=5), on_chunk=die)
"""


@pytest.fixture
def folder(documents: Path) -> Callable[[int], list[Path]]:
    """Make files that nobody has stamped."""

    def make(number: int) -> list[Path]:
        directory = documents / f"bulk-{uuid4()}"
        directory.mkdir()
        paths = [directory / f"{index:03}.md" for index in range(number)]
        for path in paths:
            path.write_text(f"{path}\n")
        return paths

    return make


def submitted(paths: list[Path], *, chunk_files: int = 5, **options: Any) -> Run:
    options = {"context": "tour", "correlation_id": f"bulk-{uuid4()}"} | options
    return Bridge().submit(workflows.stamp_files(paths, chunk_files=chunk_files, **options))


def outcomes(run: Run) -> list[FileOutcome]:
    return [outcome for _, outcome in run.outcomes()]


def effects(sandbox: Sandbox, paths: list[Path]) -> dict[str, int]:
    """How often each file was really stamped."""
    log = sandbox.http.get(f"{sandbox.metadata}/_sandbox/effects").json()["effects"]
    folders = {str(path.parent) for path in paths}
    return {one["file_path"]: one["times"] for one in log if str(Path(one["file_path"]).parent) in folders}


def test_a_run_stamps_all_its_files_and_tells_of_each_in_order(
    pool: Pool, folder: Callable[[int], list[Path]]
) -> None:
    paths = folder(23)

    run = submitted(paths)
    seen = list(run.watch(PATIENCE))

    assert (seen[-1].state, seen[-1].total, seen[-1].succeeded, seen[-1].chunks) == ("succeeded", 23, 23, 5)
    assert [at.over for at in seen] == sorted(at.over for at in seen)
    assert all(at.over <= at.total == 23 for at in seen)
    assert [file.label for file, _ in run.outcomes()] == [str(path) for path in paths]
    assert all(outcome.stamp_id and outcome.hash for outcome in outcomes(run))
    assert effects(pool.sandbox, paths) == {str(path): 1 for path in paths}
    assert Bridge().run(run.id) == run
    asked = [record["path"] for record in pool.sandbox.asked(run.correlation_id)]
    assert sum(path.endswith("/hash") for path in asked) == 23
    assert sum(path.endswith("/batch") for path in asked) == 5


def test_what_was_stamped_before_stands_in_the_next_run(
    prefork: Pool, folder: Callable[[int], list[Path]]
) -> None:
    paths = folder(7)
    first = submitted(paths)
    assert first.wait(PATIENCE).succeeded == 7

    again, other = submitted(paths), submitted(paths, context="something else")
    assert again.wait(PATIENCE).succeeded == other.wait(PATIENCE).succeeded == 7

    assert outcomes(again) == outcomes(first)
    assert prefork.sandbox.asked(again.correlation_id) == []
    assert prefork.sandbox.asked(other.correlation_id, "/batch")


def test_a_file_that_fails_among_others_is_tried_alone_and_then_is_a_dead_letter_to_be_replayed(
    prefork: Pool, folder: Callable[[int], list[Path]]
) -> None:
    paths = folder(5)
    paths[3].write_text(paths[0].read_text())
    assert (
        submitted(paths[:1], namespace="theirs").wait(PATIENCE).succeeded == 1
    )  # so that it is refused in a batch
    prefork.sandbox.order({"kind": "status", "code": 400, "path": "/stamp", "method": "POST"})

    run = submitted(paths[1:])
    ended = run.wait(PATIENCE)

    assert (ended.state, ended.succeeded, ended.failed) == ("failed", 3, 1)
    failed = outcomes(run)[2]
    assert failed.alone
    assert failed.error is not None
    assert failed.error[0] == "ClientError"
    ledger = current().ledger
    (letter,) = [dead for dead in current().run(ledger.dead()) if dead.record.correlation_id == run.correlation_id]
    assert letter.record.subject == str(paths[3])

    prefork.sandbox.heal()
    assert current().run(ledger.replay(letter.record.id))
    assert run.wait(PATIENCE).state == "succeeded"
    assert outcomes(run)[2].state == "succeeded"


def test_an_outage_in_the_midst_of_a_run_costs_nothing_but_time(
    prefork: Pool, folder: Callable[[int], list[Path]]
) -> None:
    paths = folder(10)
    prefork.sandbox.order({"kind": "status", "code": 503, "path": "/batch", "count": 3})

    run = submitted(paths)

    assert run.wait(PATIENCE).state == "succeeded"
    assert effects(prefork.sandbox, paths) == {str(path): 1 for path in paths}


def test_a_run_that_is_cancelled_ends_within_two_seconds(
    prefork: Pool, folder: Callable[[int], list[Path]]
) -> None:
    paths = folder(400)
    prefork.sandbox.order({"kind": "latency", "seconds": 0.2, "path": "/hash"})
    run = submitted(paths, chunk_files=20)
    assert eventually(lambda: prefork.sandbox.asked(run.correlation_id, "/hash"))

    began = time.monotonic()
    assert run.cancel()
    ended = run.wait(PATIENCE)

    assert time.monotonic() - began < 2
    assert (ended.state, ended.done, ended.over) == ("cancelled", True, 400)
    assert ended.cancelled > 300
    assert not run.cancel(), "it has ended"
    asked = len(prefork.sandbox.asked(run.correlation_id))
    probe = submitted(folder(1))
    prefork.sandbox.heal()
    assert probe.wait(PATIENCE).succeeded == 1
    assert len(prefork.sandbox.asked(run.correlation_id)) <= asked + 16, "what was on its way arrives, no more"


def test_a_run_whose_submitter_was_killed_is_resumed_where_it_was(
    prefork: Pool, folder: Callable[[int], list[Path]]
) -> None:
    paths = folder(33)
    killed = subprocess.run(
        [sys.executable, "-c", SUBMITTER, str(paths[0].parent), "10"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    name = killed.stdout.strip()
    plan = workflows.stamp_files(paths, context="tour", chunk_files=5)
    assert Bridge().run(name).progress().state == "submitting"

    for other in (
        workflows.stamp_files(paths[1:], context="tour", chunk_files=5),
        workflows.stamp_files(paths[:7], context="tour", chunk_files=5),
        workflows.stamp_files(paths[:3], context="tour", chunk_files=5),
        workflows.stamp_files(paths, context="another", chunk_files=5),
        workflows.stamp_files(paths, context="tour", chunk_files=5, namespace="another"),
    ):
        with pytest.raises(InvalidRequest, match=r"^run: "):
            Bridge().resume(name, other)
    run = Bridge().resume(name, plan)

    assert run.wait(PATIENCE).state == "succeeded"
    assert [file.label for file, _ in run.outcomes()] == [str(path) for path in paths]
    assert effects(prefork.sandbox, paths) == {str(path): 1 for path in paths}
    assert Bridge().resume(name, plan) == run, "what is whole may be resumed, and stays as it is"
    with pytest.raises(InvalidRequest, match="had other files"):
        Bridge().resume(name, workflows.stamp_files([*paths, *folder(5)], context="tour", chunk_files=5))
    assert run.progress().total == 33
    with pytest.raises(JobUnknown):
        Bridge().resume(str(uuid4()), plan)


@pytest.mark.usefixtures("idle")
def test_a_submitter_waits_while_too_much_of_its_run_waits_and_ends_when_it_is_cancelled(
    folder: Callable[[int], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "OUTSTANDING", 12)
    paths = folder(60)
    told: list[int] = []

    def on_chunk(run: Run, files: int) -> None:
        told.append(files)
        if told.count(files) > 3:
            run.cancel()

    run = runs.submit(workflows.stamp_files(paths, context="tour", chunk_files=1), on_chunk=on_chunk)

    assert run.progress().state == "cancelled"
    assert max(told) == run.progress().total == 20
    with pytest.raises(InvalidRequest, match="cancelled"):
        Bridge().resume(run.id, workflows.stamp_files(paths, context="tour", chunk_files=1))


@pytest.mark.usefixtures("idle")
def test_names_and_contexts_of_all_kinds_are_refused_file_by_file(folder: Callable[[int], list[Path]]) -> None:
    paths = folder(4)
    strange = os.fsencode(paths[1].parent) + b"/caf\xe9\n.md"
    Path(os.fsdecode(strange)).write_text("x")
    contexts = {str(paths[2]): "two\nlines", str(paths[3]): "x" * 3000}

    run = Bridge().submit(
        workflows.stamp_files(
            [paths[0], os.fsdecode(strange), "/etc/hostname", *paths[2:]],
            context=lambda source: contexts.get(str(source), "tour"),
        )
    )

    refused = [file.refused for file, _ in run.outcomes()]
    assert refused[0] is None
    assert [bool(why) for why in refused] == [False, True, True, True, True]
    assert str(refused[3]).startswith("context: ")


def test_workers_that_are_killed_in_the_midst_of_a_chunk_stamp_nothing_twice(
    prefork: Pool, redis_url: str, documents: Path, folder: Callable[[int], list[Path]], tmp_path: Path
) -> None:
    url = database(redis_url, 11)
    flush(url)
    environment = {
        "BRIDGE_REDIS_URL": url,
        "BRIDGE_CONTENT__ROOTS": str(documents),
        "BRIDGE_METADATA__URLS": prefork.sandbox.metadata,
        "BRIDGE_ONEXTREE__URLS": prefork.sandbox.onextree,
        "BRIDGE_LEDGER__BEAT_SECONDS": "0.2",
        "BRIDGE_LEDGER__LOOK_SECONDS": "0.3",
        "BRIDGE_LEDGER__DEAD_AFTER": "2",
    }
    paths = folder(60)
    prefork.sandbox.order({"kind": "latency", "seconds": 0.1, "path": "/batch"})
    with orchestrating(environment):
        run = submitted(paths)
        for victim in range(2):
            with worker(f"victim-{victim}", tmp_path, environment) as doomed:
                seen = len(prefork.sandbox.asked(run.correlation_id, "/batch"))
                assert eventually(lambda: len(prefork.sandbox.asked(run.correlation_id, "/batch")) > seen)  # noqa: B023 - it is over at once
                os.killpg(doomed.pid, signal.SIGKILL)
        with worker("heir", tmp_path, environment):
            ended = run.wait(PATIENCE * 2)

    assert (ended.state, ended.succeeded, ended.over) == ("succeeded", 60, 60)
    assert effects(prefork.sandbox, paths) == {str(path): 1 for path in paths}
    assert all(outcome.stamp_id for outcome in outcomes(run))


def worker(name: str, directory: Path, environment: dict[str, str]) -> Any:
    command = [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "-c", "2", "-l", "WARNING"]
    return LocalProcess(
        [*command, "-n", f"{name}@%h"],
        directory=directory,
        name=name,
        environment={**os.environ, **QUICK, **environment},
    )


def test_flower_s_own_view_of_events_shows_that_a_chunk_makes_progress() -> None:
    view = State()
    told = {"uuid": "chunk-1", "hostname": "w1", "timestamp": 1.0, "local_received": 1.0, "clock": 1, "pid": 1}
    view.event({"type": "task-progress", "run": "r", "chunk": 0, "succeeded": 5, **told})

    assert view.tasks["chunk-1"].state == "PROGRESS"  # type: ignore[attr-defined] # absent from the stubs
