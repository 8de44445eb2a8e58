"""Every form of canvas on real workers: correlation id, records and idempotency, in success and in each failure.

The worker, and this process, put each message into its queue twice. So each line of the tables is also a test of
what happens when a message is delivered again: nothing.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.canvas import Signature

from bridge_tasks import correlation
from bridge_tasks.app import app
from bridge_tasks.bridge import Bridge, Job
from bridge_tasks.errors import BridgeError, ClientError, ContentUnavailable, JobFailed
from bridge_tasks.ledger import OVER, JobRecord, keys
from bridge_tasks.ledger.records import pairs
from bridge_tasks.messages import HEADER
from bridge_tasks.runtime import current
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.tasks import check_health, generate_hash, get_stamp
from tests import foreign_tasks as foreign
from tests.doubling import again
from tests.tasks.sending import inline
from tests.workers import PATIENCE, QUEUES, QUICK, Pool, database, eventually, flush, orchestrating

Build = Callable[[Callable[[int], Signature[Any]]], Signature[Any]]

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def doubling(
    pools: dict[str, Pool], redis_url: str, documents: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A worker with the services of the prefork pool and a database of its own."""
    sandbox = pools["prefork"].sandbox
    url = database(redis_url, 7)
    flush(url)
    environment = {
        "BRIDGE_REDIS_URL": url,
        "BRIDGE_CONTENT__ROOTS": str(documents),
        "BRIDGE_METADATA__URLS": sandbox.metadata,
        "BRIDGE_ONEXTREE__URLS": sandbox.onextree,
        **QUICK,
    }
    directory = tmp_path_factory.mktemp("doubling")
    process = LocalProcess(
        [
            *(sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "-P", "threads", "-c", "4"),
            *("-n", "doubling@%h", "--without-mingle", "--without-gossip", "--include", "tests.foreign_tasks"),
        ],
        directory=directory,
        name="doubling",
        environment={
            **os.environ,
            **environment,
            "CELERY_CONFIG_MODULE": "tests.doubling_config",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        },
    )
    with process:
        pool = Pool("doubling", url, sandbox, process)
        process.wait_ready(lambda: " ready." in pool.log(), PATIENCE)
        yield pool, environment


@pytest.fixture
def pool(doubling: tuple[Pool, dict[str, str]]) -> Iterator[Pool]:
    running, environment = doubling
    running.sandbox.heal()
    before = app.conf.broker_transport
    app.conf.broker_transport = "tests.doubling:Transport"
    try:
        with orchestrating(environment):
            yield running
    finally:
        app.conf.broker_transport = before
    running.sandbox.heal()


def records(cid: str) -> dict[str, JobRecord]:
    """Every record with a correlation id."""
    client = current().ledger_redis
    found = {}
    for key in client.scan_iter(f"{keys.JOB}*", count=1000):
        fields = pairs(client.execute_command("HGETALL", key))  # type: ignore[no-untyped-call] # redis-py's own gap
        if fields.get("correlation_id") == cid:
            name = key.decode().removeprefix(keys.JOB)
            found[name] = JobRecord.loads(name, fields)
    return found


def unended(cid: str) -> list[str]:
    return [f"{record.task} {record.state}" for record in records(cid).values() if record.state not in OVER]


def settled(pool: Pool, *cids: str) -> None:
    """Wait until all records have ended and no message is left, nor held by a worker."""

    def busy() -> list[str]:
        client = current().ledger_redis
        queued = [queue for queue in QUEUES if client.llen(queue)]
        held = [key.decode() for key in client.scan_iter(f"{keys.UNACKED}*")]
        return queued + held + [line for cid in cids for line in unended(cid)]

    assert eventually(lambda: not busy(), PATIENCE), (busy(), pool.log()[-3000:])
    client = current().ledger_redis
    assert [name for queue in QUEUES for name in client.zrange(keys.OPEN + queue, 0, -1)] == [], "open, yet over"


def ended(job: Job) -> BridgeError | None:
    try:
        (end,) = Bridge().as_completed([job], timeout=PATIENCE)
    except TimeoutError:
        stuck = {name: (record.task, record.state) for name, record in records(job.correlation_id or "").items()}
        raise AssertionError(f"{job} has not ended: {stuck}") from None
    return end.error


def linked(work: Signature[Any], callback: Signature[Any]) -> Signature[Any]:
    work.link(callback)
    return work


FORMS: dict[str, tuple[int, Build]] = {
    "a task": (1, lambda step: step(0)),
    "a chain": (3, lambda step: chain(step(0), step(1), step(2))),
    "a chain of one": (1, lambda step: chain(step(0))),
    "a group of one": (1, lambda step: group(step(0))),
    "a group of one chain": (2, lambda step: group(step(0) | step(1))),
    "a group": (3, lambda step: group(step(0), step(1), step(2))),
    "a group of chains": (4, lambda step: group(step(0) | step(1), step(2) | step(3))),
    "a group in a group": (3, lambda step: group(group(step(0), step(1)), step(2))),
    "a chord": (3, lambda step: chord([step(0), step(1)], step(2))),
    "a chord of one": (2, lambda step: chord([step(0)], step(1))),
    "chains in a chord": (5, lambda step: chord([step(0) | step(1), step(2) | step(3)], step(4))),
    "a chord whose body is a chain": (4, lambda step: chord([step(0), step(1)], step(2) | step(3))),
    "a chord whose body is a group": (4, lambda step: chord([step(0), step(1)], group(step(2), step(3)))),
    "a chord in a chord": (4, lambda step: chord([chord([step(0), step(1)], step(2))], step(3))),
    "a group in a chord's header": (4, lambda step: chord([group(step(0), step(1)), step(2)], step(3))),
    "a chain that ends in a group": (3, lambda step: chain(step(0), group(step(1), step(2)))),
    "a chain with a group in the middle": (4, lambda step: chain(step(0), group(step(1), step(2)), step(3))),
    "a chain with two groups": (
        5,
        lambda step: chain(group(step(0), step(1)), step(2), group(step(3), step(4))),
    ),
    "a chain that begins with a group": (3, lambda step: chain(group(step(0), step(1)), step(2))),
    "chains that end in groups, in a group": (
        4,
        lambda step: group(chain(step(0), group(step(1), step(2))), step(3)),
    ),
    "a chain in a chain": (3, lambda step: chain(step(0), chain(step(1), step(2)))),
}
"""How many steps a form has, and how it is made of them."""

Steps = Callable[[int | None, str], Callable[[int], Signature[Any]]]
"""Makes the steps of a canvas, of which one may be broken, for a correlation id."""


@pytest.fixture
def ours(documents: Path) -> Steps:
    """Steps that are tasks of ours; the broken one is about a file that is not what it was."""

    def steps(broken: int | None, cid: str) -> Callable[[int], Signature[Any]]:
        stale = {"kind": "file", "path": str(documents / "guide.md"), "size": 1}
        return lambda number: generate_hash.si(content=stale if number == broken else inline(f"{cid} {number}"))

    return steps


def foreign_steps(broken: int | None, _: str) -> Callable[[int], Signature[Any]]:
    """Steps that are other tasks of the application."""
    return lambda number: (foreign.fail if number == broken else foreign.echo).si(f"{number}")


def named(*parts: object) -> str:
    """A correlation id that says what it is for."""
    return ":".join(str(part).replace(" ", "-") for part in parts).replace(",", "").replace("'", "")


def submitted(name: str, kind: str, steps: Steps) -> tuple[dict[int | None, str], dict[int | None, Job]]:
    """Submit a form once with all its steps whole, and once with each of them broken."""
    count, build = FORMS[name]
    cids = {broken: named(kind, name, broken) for broken in (None, *range(count))}
    jobs = {broken: Bridge().submit(build(steps(broken, cid)), correlation_id=cid) for broken, cid in cids.items()}
    return cids, jobs


@pytest.mark.parametrize("name", FORMS)
def test_every_step_of_ours_runs_once_and_its_failure_is_the_job_s(pool: Pool, ours: Steps, name: str) -> None:
    count, build = FORMS[name]
    cids, jobs = submitted(name, "ours", ours)
    errors = {broken: ended(job) for broken, job in jobs.items()}
    settled(pool, *cids.values())

    whole, cid = jobs[None], cids[None]
    assert errors.pop(None) is None
    assert whole.state == "succeeded"
    assert len(pool.sandbox.asked(cid, "/hash")) == count, "each step ran, and none ran twice"
    assert {record["headers"].get("x-correlation-id") for record in pool.sandbox.asked(path="/hash")} <= set(
        cids.values()
    )
    for broken, error in errors.items():
        assert isinstance(error, ContentUnavailable), (broken, error)
        outcome = jobs[broken].record.outcome
        assert (jobs[broken].state, type(outcome and outcome.error)) == ("failed", ContentUnavailable)
        asked = [record["sha256"] for record in pool.sandbox.asked(cids[broken], "/hash") if "sha256" in record]
        assert len(asked) == len(set(asked))
    letters = [letter.record.correlation_id for letter in current().run(current().ledger.dead())]
    assert sorted(cid for cid in letters if cid in cids.values()) == sorted(cids[broken] for broken in errors), (
        "one dead letter for one failure"
    )

    standing = Bridge().submit(build(ours(None, cid)), correlation_id="another")
    assert (standing.id, standing.stands) == (whole.id, True), "the same work is the same job"
    assert standing.result(PATIENCE) == whole.result(PATIENCE)
    anew = Bridge().submit(build(ours(0, cids[0])), correlation_id=cids[0])
    assert not anew.stands, "a failed job stands for no other"
    assert isinstance(ended(anew), ContentUnavailable)
    settled(pool, cid, cids[0])
    assert len(pool.sandbox.asked(cid, "/hash")) == count
    assert pool.sandbox.asked("another") == []


@pytest.mark.parametrize("name", FORMS)
def test_every_step_that_is_not_ours_runs_once_too(pool: Pool, name: str) -> None:
    count, _ = FORMS[name]
    cids, jobs = submitted(name, "foreign", foreign_steps)
    errors = {broken: ended(job) for broken, job in jobs.items()}
    settled(pool, *cids.values())

    assert errors.pop(None) is None
    assert sorted(foreign.ran(cids[None])) == [f"{number}" for number in range(count)]
    for broken, error in errors.items():
        assert isinstance(error, JobFailed), (broken, error)
        assert (str(error), error.cause) == ("ValueError", "ValueError"), (
            "the type is named, the text is not shown"
        )
        assert len(foreign.ran(cids[broken])) == len(set(foreign.ran(cids[broken])))


STAND_INS: dict[str, list[str]] = {
    "task": ["one"],
    "chain": ["one", "two", "three"],
    "group": ["one", "two"],
    "chord": ["one", "two", "three"],
    "chain with a group": ["one", "two", "three"],
    "ours": [],
}
PLACES: dict[str, Callable[[Signature[Any]], Signature[Any]]] = {
    "alone": lambda it: it,
    "first": lambda it: chain(it, foreign.echo.si("after")),
    "in the middle": lambda it: chain(foreign.echo.si("before"), it, foreign.echo.si("after")),
    "in a group": lambda it: group(foreign.echo.si("beside"), it),
    "in a header": lambda it: chord([foreign.echo.si("beside"), it], foreign.echo.si("after")),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_takes_a_task_s_place_is_a_step_of_its_job(pool: Pool, place: str) -> None:
    work = {
        named("place", place, kind, broken): foreign.stand_in.si(kind, broken, 1 if kind == "chain" else 0)
        for kind, names in STAND_INS.items()
        for broken in (None, *names)
        if (kind, broken) != ("chord", "three")
    }
    around = {"alone": 0, "first": 1, "in the middle": 2, "in a group": 1, "in a header": 2}[place]
    jobs = {cid: Bridge().submit(PLACES[place](it), correlation_id=cid) for cid, it in work.items()}

    errors = {cid: ended(job) for cid, job in jobs.items()}
    settled(pool, *jobs)

    for cid, error in errors.items():
        kind, broken = cid.split(":")[2:]
        assert len(foreign.ran(cid)) == len(set(foreign.ran(cid))), (cid, foreign.ran(cid))
        if broken == "None":
            assert error is None, (cid, error)
            assert len(foreign.ran(cid)) == 1 + around + len(STAND_INS[kind.replace("-", " ")]), foreign.ran(cid)
            assert jobs[cid].state == "succeeded"
        else:
            assert isinstance(error, JobFailed), (cid, error)
            assert jobs[cid].state == "failed"
    assert len(pool.sandbox.asked(named("place", place, "ours", None), "/hash")) == 1


def test_callbacks_run_once_and_end_nothing_but_themselves(pool: Pool) -> None:
    work: dict[str, Signature[Any]] = {
        "well": linked(generate_hash.si(content=inline("linked")), check_health.si()),
        "well-foreign": linked(foreign.echo.si("first"), foreign.echo.si("linked")),
        "well-chain": linked(chain(foreign.echo.si("a"), foreign.echo.si("b")), foreign.echo.si("linked")),
        "ill-callback": linked(foreign.echo.si("first"), foreign.fail.si("linked")),
        "early": chain(linked(foreign.echo.si("first"), foreign.echo.si("linked")), foreign.echo.si("second")),
        "canvas": linked(foreign.echo.si("first"), chain(foreign.echo.si("x"), foreign.echo.si("y"))),
    }
    jobs = {cid: Bridge().submit(it, correlation_id=f"link:{cid}") for cid, it in work.items()}
    errors = {cid: ended(job) for cid, job in jobs.items()}
    settled(pool, *(f"link:{cid}" for cid in work))

    assert errors == dict.fromkeys(work), "a callback that fails is no failure of the job"
    ran = {cid: sorted(foreign.ran(f"link:{cid}")) for cid in work}
    assert ran == {
        "well": [],
        "well-foreign": ["first", "linked"],
        "well-chain": ["a", "b", "linked"],
        "ill-callback": ["first", "linked"],
        "early": ["first", "linked", "second"],
        "canvas": ["first", "x", "y"],
    }
    tasks = [record.task for record in records("link:well").values()]
    assert sorted(tasks) == ["bridge.check_health", "bridge.generate_hash"]
    assert {job.state for job in jobs.values()} == {"succeeded"}

    other = Bridge().submit(linked(generate_hash.si(content=inline("linked")), get_stamp.s()))
    assert not other.stands, "with another callback, it is other work"


def test_error_callbacks_run_once_per_failure(pool: Pool) -> None:
    def caught(work: Signature[Any]) -> Signature[Any]:
        work.link_error(foreign.caught.si("caught"))
        return work

    work = {
        "task": caught(foreign.fail.si("x")),
        "first": caught(chain(foreign.fail.si("x"), foreign.echo.si("never"))),
        "last": caught(chain(foreign.echo.si("before"), foreign.fail.si("x"))),
        "two": caught(group(foreign.fail.si("x"), foreign.fail.si("y"))),
        "well": caught(chain(foreign.echo.si("a"), foreign.echo.si("b"))),
    }
    jobs = {cid: Bridge().submit(it, correlation_id=f"error:{cid}") for cid, it in work.items()}
    for job in jobs.values():
        ended(job)
    settled(pool, *(f"error:{cid}" for cid in work))

    assert {cid: sorted(foreign.ran(f"error:{cid}")) for cid in work} == {
        "task": ["caught", "x"],
        "first": ["caught", "x"],
        "last": ["before", "caught", "x"],
        "two": ["caught", "caught", "x", "y"],
        "well": ["a", "b"],
    }
    assert {cid: job.state for cid, job in jobs.items()} == {
        **dict.fromkeys(("task", "first", "last", "two"), "failed"),
        "well": "succeeded",
    }


def test_retries_and_countdowns_are_further_messages_of_the_same_step(pool: Pool) -> None:
    pool.sandbox.order({"kind": "status", "code": 503, "path": "/hash", "count": 2})
    jobs = [
        Bridge().submit(chain(foreign.stumble.si("stumbling"), foreign.echo.si("then")), correlation_id="again"),
        Bridge().submit(
            chain(generate_hash.si(content=inline("retried")), check_health.si()), correlation_id="retried"
        ),
        Bridge().submit(foreign.echo.si("late").set(countdown=0.5), correlation_id="late"),
        Bridge().submit(
            chain(foreign.echo.si("a"), foreign.echo.si("late").set(countdown=0.5)), correlation_id="later"
        ),
    ]
    assert [ended(job) for job in jobs] == [None] * 4
    settled(pool, "again", "retried", "late", "later")

    assert foreign.ran("again") == ["stumbling"] * 3 + ["then"]
    assert len(pool.sandbox.asked("retried", "/hash")) == 3
    assert (foreign.ran("late"), foreign.ran("later")) == (["late"], ["a", "late"])
    (stumbled,) = [record for record in records("again").values() if record.task == "foreign.stumble"]
    assert stumbled.runs == 3


def test_maps_and_chunks_are_one_step_each_or_one_per_chunk(pool: Pool) -> None:
    content = [{"content": inline(text)} for text in "abcd"]
    assert content
    jobs = {
        "map": Bridge().submit(foreign.echo.map(["a", "b", "c"]), correlation_id="map"),
        "starmap": Bridge().submit(foreign.echo.starmap([("a",), ("b",)]), correlation_id="starmap"),
        "chunks": Bridge().submit(
            foreign.echo.chunks([("a",), ("b",), ("c",)], 2).group(), correlation_id="chunks"
        ),
    }
    assert {cid: ended(job) for cid, job in jobs.items()} == dict.fromkeys(jobs)
    settled(pool, *jobs)
    standing = Bridge().submit(foreign.echo.map(["a", "b", "c"]))
    assert ended(standing) is None
    other = Bridge().submit(foreign.echo.map(["a", "b"]), correlation_id="other")
    assert not other.stands


def test_ours_and_others_make_one_job(pool: Pool) -> None:
    job = Bridge().submit(
        chain(generate_hash.si(content=inline("mixed")), foreign.echo.s("between"), check_health.si()),
        correlation_id="mixed",
    )
    assert job.result(PATIENCE)["metadata"]["healthy"]
    settled(pool, "mixed")
    assert foreign.ran("mixed") == ["between"]
    assert [task for _, task in job.record.steps] == [
        "bridge.generate_hash",
        "foreign.echo",
        "bridge.check_health",
    ]
    assert job.record.title == "chain: generate_hash | foreign.echo | check_health"


def test_without_the_bridge_each_message_of_ours_has_a_record_and_runs_once(pool: Pool) -> None:
    failing = generate_hash.si(content=inline("plain"), namespace="x") | get_stamp.s()
    sent = [
        generate_hash.si(content=inline("plain 1")).set(headers={HEADER: "plain"}),
        (generate_hash.si(content=inline("plain 2")) | get_stamp.s()),
        chord([generate_hash.si(content=inline(f"plain {number}")) for number in (3, 4)], check_health.si()),
        failing,
    ]
    with correlation.bound("plain"):
        for work in sent:
            work.apply_async().get(timeout=PATIENCE)
    settled(pool, "plain")
    assert len(pool.sandbox.asked("plain", "/hash")) == 5
    assert {record.state for record in records("plain").values()} == {"succeeded"}


def test_a_message_that_comes_again_much_later_runs_no_more(pool: Pool) -> None:
    pool.sandbox.order({"kind": "latency", "seconds": 0.5, "path": "/hash", "count": 1})
    job = Bridge().submit(generate_hash.si(content=inline("once")), correlation_id="once")
    client = current().ledger_redis
    message = client.hget(keys.JOB + job.id, "message")
    assert message is not None
    assert ended(job) is None
    for _ in range(3):
        again(client, "bridge.metadata", message)
    settled(pool, "once")
    assert len(pool.sandbox.asked("once", "/hash")) == 1


def test_one_signature_may_be_submitted_many_times(pool: Pool) -> None:
    work = chain(foreign.echo.si("one"), foreign.echo.si("two"))
    first = Bridge().submit(work, correlation_id="many")
    assert ended(first) is None
    second = Bridge().submit(work, correlation_id="many")
    third = Bridge().submit(work, correlation_id="many", force=True)
    assert [ended(second), ended(third)] == [None, None]
    settled(pool, "many")
    assert len({first.id, second.id, third.id}) == 3, "what is no lasting work is done again"
    assert first.state == "succeeded"
    assert sorted(foreign.ran("many")) == ["one"] * 3 + ["two"] * 3


def test_a_group_of_which_two_members_failed_is_well_once_both_were_replayed(pool: Pool) -> None:
    pool.sandbox.order({"kind": "status", "code": 422, "path": "/hash"})
    work = group(generate_hash.si(content=inline(f"replayed {number}")) for number in range(2))
    job = Bridge().submit(work, correlation_id="replayed")
    assert isinstance(ended(job), ClientError)
    settled(pool, "replayed")
    pool.sandbox.heal()
    ledger = current().ledger
    one, two = (
        letter.record.id for letter in current().run(ledger.dead()) if letter.record.correlation_id == "replayed"
    )

    assert current().run(ledger.replay(one))
    settled(pool, "replayed")
    assert job.state == "failed", "the other one still is"
    assert isinstance(job.record.outcome.error, ClientError)  # type: ignore[union-attr] # it failed
    assert current().run(ledger.replay(two))
    assert ended(job) is None
    assert [each["file_size_bytes"] for each in job.result(PATIENCE)] == [10, 10]
