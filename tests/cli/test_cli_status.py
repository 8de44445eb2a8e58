"""A user who lost the terminal, the submitter or a worker finds out with one command what happened."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import chord

from bridge_tasks import Bridge, workflows
from bridge_tasks.bridge import Job
from bridge_tasks.cli import main
from bridge_tasks.cli.moments import lasting, moment
from bridge_tasks.errors import ContentUnavailable, InvalidRequest
from bridge_tasks.ledger import Outcome
from bridge_tasks.runtime import current
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.tasks import check_health, generate_hash
from tests.cli.command import Ended, run
from tests.cli.conftest import Up
from tests.tasks.sending import inline
from tests.workers import PATIENCE, orchestrating

Typed = Callable[..., Ended]


@pytest.fixture
def here(up: Up) -> Iterator[Up]:
    """The stack of `up`, with this process as an orchestrator."""
    variables = {"BRIDGE_REDIS_URL": up.addresses["redis_url"], "BRIDGE_CONTENT__ROOTS": str(up.directory)}
    with orchestrating(variables):
        yield up


def changed_since(path: Path) -> dict[str, Any]:
    """A reference to a file that is not what it was."""
    return {"kind": "file", "path": str(path), "size": 1}


def ended(job: Job) -> Job:
    list(Bridge().as_completed([job], timeout=PATIENCE))
    return job


def failing(up: Up, name: str, cid: str) -> Job:
    page = up.write(name, "not one byte")
    return ended(Bridge().submit(generate_hash.si(content=changed_since(page)), correlation_id=cid))


@pytest.fixture
def typed(here: Up, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Types a command in this process, which spares a new one's second, in a terminal of 80 columns."""
    monkeypatch.chdir(here.directory)
    monkeypatch.setenv("COLUMNS", "80")

    def enter(*arguments: str) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["bridge-tasks", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return Ended(int(left.value.code or 0), said.out, said.err)

    return enter


def test_a_stranger_finds_a_job_from_another_terminal(here: Up) -> None:
    job = failing(here, "another.md", f"another-{uuid4().hex}")
    told = here.run("status", "another.md", "--json")
    assert (told.status, told.json["found"][0]["id"]) == (1, job.id)


def test_a_job_is_found_by_its_id_its_correlation_id_and_its_file(here: Up, typed: Typed) -> None:
    page = here.write("found.md", "# Found")
    cid = f"found-{uuid4().hex}"
    job = ended(Bridge().submit(workflows.stamp_file(page, context="c", correlation_id=cid)))

    for asked in (job.id, cid, str(page), "found.md"):
        told = typed("status", asked, "--json")
        assert told.status == 0, told.err
        (found,) = told.json["found"]
        assert (found["id"], found["state"], found["correlation_id"]) == (job.id, "succeeded", cid)
        assert [step["task"] for step in found["steps"]] == [
            "bridge.generate_hash",
            "bridge.get_intelligence",
            "bridge.create_stamp",
        ]
        assert {step["state"] for step in found["steps"]} == {"succeeded"}
        assert found["result"]["path"] == str(page)

    screen = typed("status", "found.md").out
    assert all(len(line) <= 80 for line in screen.splitlines())
    assert "chain: generate_hash | get_intelligence | create_stamp" in screen
    assert screen.count("succeeded") == 4


def test_a_failure_is_told_with_what_to_do_and_the_steps_that_never_began(here: Up, typed: Typed) -> None:
    page = here.write("changed.md", "as it was")
    work = workflows.stamp_file(page, context="c", correlation_id=f"changed-{uuid4().hex}")
    page.write_text("as it is now")
    job = ended(Bridge().submit(work))

    told = typed("status", job.id)
    assert told.status == 1
    assert "ContentUnavailable: " in told.out
    assert told.out.count("never began") == 2
    (found,) = typed("status", job.id, "--json").json["found"]
    assert found["error"]["message"].endswith("has changed since the job was made")
    step = found["steps"][0]["id"]
    assert found["advice"].endswith(f"bridge-tasks dead replay {step})")
    assert typed("status", step).status == 1


def test_several_jobs_of_one_correlation_id_are_a_table(here: Up, typed: Typed) -> None:
    cid = f"many-{uuid4().hex}"
    for number in range(3):
        ended(Bridge().submit(generate_hash.si(content=inline(f"{cid} {number}")), correlation_id=cid))
    failing(here, "one-of-many.md", cid)

    told = typed("status", cid)
    assert told.status == 1
    assert all(len(line) <= 80 for line in told.out.splitlines())
    assert told.out.splitlines()[-1] == f"4 jobs with {cid}: 1 failed, 3 succeeded"
    assert told.out.splitlines()[1].split()[1] == "failed", "what is wrong comes first"


def test_a_file_of_a_bulk_run_is_told_of_by_its_run(here: Up, typed: Typed) -> None:
    page = here.write("in-bulk.md", "# In bulk")
    handle = Bridge().submit(workflows.stamp_files([page], context="c"))
    handle.wait(PATIENCE)

    (file,) = typed("status", "in-bulk.md", "--json").json["found"]
    assert (file["kind"], file["run"], file["state"]) == ("file", handle.id, "succeeded")
    (of_run,) = typed("status", handle.id, "--json").json["found"]
    assert (of_run["kind"], of_run["state"], of_run["total"], of_run["succeeded"]) == ("run", "succeeded", 1, 1)
    assert "1: 1 succeeded, 0 failed, 0 cancelled, 0 to come" in typed("status", handle.id).out


def test_what_nobody_knows_of_is_told_so(typed: Typed) -> None:
    for asked in (str(uuid4()), "no/such/file", "\x1b[2J"):
        told = typed("status", asked)
        assert (told.status, told.out) == (2, "")
        assert "Nothing is known of" in told.err
        assert "\x1b[2J" not in told.err
    assert typed("status", "nothing", "--json").json == {"asked": "nothing", "found": []}


def test_a_dead_letter_is_listed_shown_replayed_and_dropped(here: Up, typed: Typed) -> None:
    cid = f"dead-{uuid4().hex}"
    job = failing(here, "dead.md", cid)
    only = ("--correlation-id", cid)

    listed = typed("dead", "list", *only)
    assert listed.status == 0
    assert job.id in listed.out
    assert "dead.md" in listed.out
    assert listed.out.splitlines()[-1].startswith("1 dead letter")
    (plain,) = typed("dead", "list", *only, "--json").json["dead"]
    assert (plain["id"], plain["replayable"], plain["error"]["type"]) == (job.id, True, "ContentUnavailable")
    assert typed("dead", "list", *only, "--error", "ClientError", "--json").json["dead"] == []
    assert len(typed("dead", "list", "--about", "*/dead.md", "--since", "1h", "--json").json["dead"]) >= 1
    shown_one = typed("dead", "show", job.id)
    assert (shown_one.status, "ContentUnavailable" in shown_one.out) == (0, True)

    (here.directory / "dead.md").write_text("1")
    replayed = typed("dead", "replay", job.id, "--json")
    assert (replayed.status, replayed.json) == (0, {"replayed": [job.id], "refused": {}})
    ended(job)
    assert (job.state, job.record.correlation_id) == ("succeeded", cid), "the same job, under the same id"
    assert typed("dead", "replay", job.id).status == 1
    assert typed("dead", "show", job.id).status == 1

    other = failing(here, "dropped.md", cid)
    dropped = typed("dead", "drop", *only)
    assert dropped.status == 0
    assert dropped.out.startswith("1 dead letter dropped")
    assert typed("dead", "replay", other.id).status == 1
    assert typed("status", other.id).status == 1, "how it ended is still known"


def test_a_chord_s_member_is_not_replayed_and_is_told_why(here: Up, typed: Typed) -> None:
    page = here.write("joined.md", "not one byte")
    cid = f"joined-{uuid4().hex}"
    members = [generate_hash.si(content=inline(cid)), generate_hash.si(content=changed_since(page))]
    ended(Bridge().submit(chord(members, check_health.si()), correlation_id=cid))

    refused = typed("dead", "replay", "--correlation-id", cid)
    assert refused.status == 1
    assert "a chord's member cannot be replayed alone: submit the job again" in refused.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dead", "replay"), "name ids, or say which by filters, or say --all"),
        (("dead", "drop", "x", "--all"), "name ids, or say which by filters, or say --all"),
        (("dead", "replay", "x", "--task", "y"), "name ids, or say which by filters, or say --all"),
        (("dead", "list", "--since", "yesterday"), "--since: must be like 10m"),
        (("dead", "show", "x\x1b[2J"), "there is no dead letter"),
        (("status",), "Missing argument"),
    ],
)
def test_what_makes_no_sense_is_refused(typed: Typed, arguments: tuple[str, ...], said: str) -> None:
    told = typed(*arguments)
    assert told.status in (1, 2)
    assert said in told.err
    assert "\x1b" not in told.err


def test_health_says_that_jobs_wait_for_a_worker_and_that_some_are_dead(tmp_path: Path) -> None:
    with PrivateRedis() as server:
        variables = {"BRIDGE_REDIS_URL": server.url}
        with orchestrating(variables):
            Bridge().submit(check_health.s())
        told = run("health", cwd=tmp_path, extra=variables)
        assert told.status == 1
        assert "1 job waits, and no worker lives: bridge-tasks worker starts one." in told.out
        assert "dead letter" not in told.out
        with orchestrating(variables):
            job = Bridge().submit(generate_hash.s(content=inline("x")))
            _fail(job)
        told = run("health", cwd=tmp_path, extra=variables)
        assert "1 dead letter: bridge-tasks dead list tells why." in told.out
        jobs = run("health", "--json", cwd=tmp_path, extra=variables).json["jobs"]
        assert (jobs["waiting"], jobs["dead_letters"]) == (2, 1)


def _fail(job: Job) -> None:
    """Tell the ledger what a worker would."""
    current().run(current().ledger.finish(job.id, Outcome("failed", error=ContentUnavailable("gone"))))


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("90s", 910.0),
        ("10m", 400.0),
        ("0.1h", 640.0),
        ("1d", 1000.0 - 86_400),
        ("1970-01-01T00:10:00+00:00", 600.0),
    ],
)
def test_times_are_read_as_people_write_them(told: str, seconds: float) -> None:
    assert moment(told, "--since", 1000.0) == pytest.approx(seconds)


def test_a_time_that_cannot_be_read_is_refused_and_none_is_none() -> None:
    assert moment(None, "--since", 0.0) is None
    with pytest.raises(InvalidRequest, match="--until"):
        moment("soon", "--until", 0.0)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-1, "0.0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59, "59 s"),
        (60, "1 min"),
        (7199, "120 min"),
        (7200, "2 h"),
    ],
)
def test_times_are_written_so_that_people_grasp_them(seconds: float, told: str) -> None:
    assert lasting(seconds) == told


def test_json_is_one_object_on_one_line(typed: Typed) -> None:
    for arguments in (("status", "nothing"), ("dead", "list")):
        (line,) = typed(*arguments, "--json").out.splitlines()
        assert isinstance(json.loads(line), dict)
