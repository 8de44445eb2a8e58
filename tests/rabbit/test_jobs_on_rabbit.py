"""Jobs whose messages RabbitMQ carries: every form of work, what waits, what goes wrong, what strangers send."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import amqp
import kombu
import pytest
from celery import chord, group
from celery.canvas import Signature
from kombu.exceptions import OperationalError

from bridge_tasks import AsyncBridge, workflows
from bridge_tasks.app import app
from bridge_tasks.bridge import Bridge
from bridge_tasks.broker import rabbitmq, recording
from bridge_tasks.errors import MessageRefused
from bridge_tasks.models.content import InlineContent
from bridge_tasks.sandbox.faults import Latency, Status
from bridge_tasks.settings import LedgerSettings, load
from bridge_tasks.tasks import check_health, generate_hash
from bridge_tasks.worker.relay import Relay
from tests.chaos.stage import NOTHING, Stage, done_once, staged, submitted
from tests.rabbit_server import PrivateRabbit
from tests.tasks.sending import inline
from tests.workers import PATIENCE, QUEUES, eventually, json_lines, orchestrating

METADATA, ONEXTREE, BULK = QUEUES


def seen(server: PrivateRabbit, queue: str = METADATA) -> Any:
    """What RabbitMQ says of a queue: its messages that nobody has taken, its consumers."""
    with kombu.Connection(server.url) as connection:
        channel: Any = connection.default_channel
        return channel.queue_declare(queue, passive=True)


def hashed(text: str) -> Signature[Any]:
    return generate_hash.s(content=inline(text))


def stamped(text: str) -> Signature[Any]:
    content = InlineContent.model_validate(inline(text))
    return workflows.stamp_file_job(content, context=text, file_path=f"/{text}")


def alone(text: str) -> Signature[Any]:
    """As a later step that takes nothing from the one before."""
    return stamped(text).set(immutable=True)


FORMS: dict[str, Callable[[], Signature[Any]]] = {
    "a task": lambda: hashed("task"),
    "a chain": lambda: workflows.stamp_file(
        InlineContent.model_validate(inline("chain")), context="c", file_path="/chain"
    ),
    "a group": lambda: group(stamped("one"), stamped("two")),
    "a group of chains": lambda: group(hashed("a") | check_health.si(), check_health.si() | alone("three")),
    "a chord": lambda: chord([check_health.si(), check_health.si()], check_health.si()),
    "a task of another queue": lambda: app.signature("bridge.get_intelligence", kwargs={"context": "c"}),
}


def test_every_form_of_work_is_done_and_stamped_once(stage: Stage) -> None:
    jobs = {form: Bridge().submit(build()) for form, build in FORMS.items()}
    stage.ready(stage.worker("only"))

    for end in Bridge().as_completed(jobs.values(), timeout=PATIENCE):
        assert end.error is None, (end, stage.logs())
    assert {form: job.state for form, job in jobs.items()} == dict.fromkeys(FORMS, "succeeded"), stage.logs()
    assert stage.effects() == {"/chain": 1, "/one": 1, "/two": 1, "/three": 1}
    assert eventually(lambda: stage.leftovers() == NOTHING, 20), stage.leftovers()


def test_a_bulk_run_is_done(stage: Stage) -> None:
    files = [stage.directory / f"{number}.txt" for number in range(6)]
    for file in files:
        file.write_text(file.name)
    stage.ready(stage.worker("only"))

    run = Bridge().submit(workflows.stamp_files(files, context="c", chunk_files=2))

    assert run.wait(60).succeeded == 6, stage.logs()
    assert stage.effects() == {str(file): 1 for file in files}


def test_queues_that_last_are_quorum_queues(stage: Stage, rabbit: PrivateRabbit) -> None:
    submitted("quorum")

    with kombu.Connection(rabbit.url) as connection:
        channel: Any = connection.default_channel
        with pytest.raises(amqp.PreconditionFailed, match="x-queue-type"):
            channel.queue_declare(METADATA, durable=True, auto_delete=False)
    assert seen(rabbit).message_count == 1
    assert stage.leftovers()["keys"] == [f"bridge:open:{METADATA}"]


def test_the_same_work_is_one_job_and_one_message(stage: Stage, rabbit: PrivateRabbit) -> None:
    first, second = submitted("same"), submitted("same")

    assert second.stands
    assert second.id == first.id
    assert seen(rabbit).message_count == 1
    assert stage.effects() == {}


def test_what_may_pass_is_tried_again_after_a_while(stage: Stage) -> None:
    stage.controls.faults.add(Status(code=500, count=1, path="/stamp"))
    stage.ready(stage.worker("only"))

    done_once(stage, submitted("passing"), "passing")


def test_what_waits_for_its_time_waits_in_no_queue_and_in_no_worker(stage: Stage, rabbit: PrivateRabbit) -> None:
    worker = stage.ready(stage.worker("only"))

    job = Bridge().submit(stamped("later").set(countdown=4))

    with stage.redis() as client:
        assert client.zrange("bridge:outbox", 0, -1) == [job.id]
    worker.kill()  # what it held would be in the queue again
    assert seen(rabbit).message_count == 0
    stage.ready(stage.worker("heir"))
    done_once(stage, job, "later")
    record = job.record
    assert record.begun is not None
    assert record.begun - record.accepted >= 3.9


@contextmanager
def with_a_circuit(
    rabbit: PrivateRabbit, directory: Path, inherited: dict[str, str], **more: str
) -> Iterator[Stage]:
    """A stage whose circuits open soon, and are probed soon."""
    breaker = "BRIDGE_METADATA__BREAKER__"
    environment = {
        "BRIDGE_BROKER_URL": rabbit.url,
        f"{breaker}FAILURE_THRESHOLD": "3",
        f"{breaker}RECOVERY_TIMEOUT": "0.5",
        f"{breaker}MAX_RECOVERY_TIMEOUT": "1",
        **more,
    }
    with staged(directory, inherited, **environment) as set_up, orchestrating(set_up.environment):
        yield set_up


def test_an_outage_pauses_the_queue_and_costs_no_attempt(
    rabbit: PrivateRabbit, tmp_path: Path, inherited: dict[str, str]
) -> None:
    with with_a_circuit(rabbit, tmp_path, inherited) as stage:
        stage.controls.faults.add(Status(code=503, path="/hash"), Status(code=503, path="/stamp"))
        stage.ready(stage.worker("only"))
        jobs = {text: submitted(text) for text in map(str, range(12))}

        assert eventually(lambda: seen(rabbit).consumer_count == 0), stage.logs()
        assert seen(rabbit, ONEXTREE).consumer_count == 1
        stage.controls.faults.clear()

        assert eventually(lambda: seen(rabbit).consumer_count == 1), stage.logs()
        ends = list(Bridge().as_completed(jobs.values(), timeout=PATIENCE))
        assert [end.error for end in ends] == [None] * 12, stage.logs()
        assert stage.effects() == {f"/{text}": 1 for text in jobs}


def test_a_rabbitmq_that_dies_while_a_job_runs_costs_nothing(stage: Stage, rabbit: PrivateRabbit) -> None:
    stage.controls.faults.add(Latency(seconds=3, count=1, path="/stamp"))
    stage.ready(stage.worker("only"))
    job, waiting = submitted("running"), [submitted(f"waits {number}") for number in range(4)]
    assert eventually(lambda: stage.controls.records.counts()["faults"]), stage.logs()

    rabbit.kill()
    rabbit.start()

    ends = list(Bridge().as_completed([job, *waiting], timeout=PATIENCE))
    assert [end.error for end in ends] == [None] * 5, stage.logs()
    assert stage.effects() == {"/running": 1, **{f"/waits {number}": 1 for number in range(4)}}
    assert eventually(lambda: stage.leftovers() == NOTHING, 20), stage.leftovers()


def test_a_ledger_that_is_away_keeps_messages_from_being_run_without_a_claim(stage: Stage) -> None:
    job = submitted("claimed")
    stage.server.kill()
    stage.worker("only").start()
    stage.server.start()

    done_once(stage, job, "claimed")


def test_what_rabbitmq_did_not_confirm_is_told_and_done_all_the_same(
    stage: Stage, rabbit: PrivateRabbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted("before")  # so that there are connections
    monkeypatch.setattr(rabbitmq, "CONFIRM_SECONDS", 0.5)
    rabbit.pause()

    with pytest.raises(OperationalError):
        submitted("frozen")
    rabbit.resume()

    stage.ready(stage.worker("only"))
    assert eventually(lambda: stage.effects() == {"/before": 1, "/frozen": 1}), stage.logs()
    assert eventually(lambda: stage.leftovers() == NOTHING, 20), stage.leftovers()


def test_a_queue_that_somebody_deleted_is_declared_anew(stage: Stage, rabbit: PrivateRabbit) -> None:
    submitted("first")
    with kombu.Connection(rabbit.url) as connection:
        channel: Any = connection.default_channel
        channel.queue_delete(METADATA)

    job = submitted("second")

    assert seen(rabbit).message_count == 1
    stage.ready(stage.worker("only"))
    assert eventually(lambda: job.state == "succeeded"), stage.logs()


@pytest.mark.usefixtures("stage")
def test_what_is_in_no_queue_any_more_is_found_and_sent_again(rabbit: PrivateRabbit) -> None:
    submitted("purged")
    with kombu.Connection(rabbit.url) as connection:
        channel: Any = connection.default_channel
        channel.queue_purge(METADATA)
    relay = Relay(load().ledger_place, load().ledger, "w", patience=0)
    try:
        relay.look()
        relay.turn()
        assert seen(rabbit).message_count == 0  # it may be on its way to a worker
        relay.look()
        relay.turn()
    finally:
        relay.stop_client()

    assert seen(rabbit).message_count == 1


@pytest.mark.usefixtures("stage")
def test_it_is_found_where_looks_are_set_closer_together_than_signs_of_life(rabbit: PrivateRabbit) -> None:
    """A lease that ended between two looks had every look begin anew, and nothing was ever missing twice."""
    submitted("purged")
    with kombu.Connection(rabbit.url) as connection:
        channel: Any = connection.default_channel
        channel.queue_purge(METADATA)
    relay = Relay(
        load().ledger_place, LedgerSettings(look_seconds=0.001, beat_seconds=0.2, dead_after=1), "w", patience=0
    )
    relay.start()
    try:
        assert eventually(lambda: seen(rabbit).message_count == 1, 20)
    finally:
        relay.stop()


@pytest.mark.parametrize("keys", ["", "k" * 32])
def test_what_waited_in_redis_when_the_broker_was_changed_goes_to_rabbitmq(
    rabbit: PrivateRabbit, tmp_path: Path, inherited: dict[str, str], keys: str
) -> None:
    with with_a_circuit(rabbit, tmp_path, inherited, BRIDGE_LEDGER__SIGNING_KEYS=keys) as stage:
        with orchestrating({**stage.environment, "BRIDGE_BROKER_URL": stage.server.url}):
            job = submitted("moving")
        with orchestrating(stage.environment):
            stage.ready(stage.worker("only"))
            assert eventually(lambda: seen(rabbit).message_count == 0)
            relay = Relay(load().ledger_place, load().ledger, "w", patience=0)

            def looked() -> bool:
                relay.look()
                return Bridge().job(job.id).state == "succeeded"

            try:
                assert eventually(looked), stage.logs()
            finally:
                relay.stop_client()
        assert stage.effects() == {"/moving": 1}


STRANGE: tuple[tuple[bytes, dict[str, Any]], ...] = (
    (b"\x80\x04N.", {"task": "bridge.generate_hash", "id": "x"}),
    (b"no json", {}),
    (b"[[], {}, {}]", {"task": ["no", "name"], "id": "x"}),
    (b"\xff\xfe", {"task": "bridge.generate_hash", "id": "x"}),
    (b"[[], {}, {}]", {"task": "bridge.unknown", "id": "x", "eta": "no time"}),
    (b"[[], {}, {}]", {"task": "bridge.unknown", "id": "y"}),
)


def test_what_strangers_put_into_a_queue_is_dropped_and_told(stage: Stage, rabbit: PrivateRabbit) -> None:
    worker = stage.ready(stage.worker("only", "prefork"))
    with kombu.Connection(rabbit.url) as connection:
        channel: Any = connection.default_channel
        for body, headers in STRANGE:
            told = {"content_type": "application/json", "content_encoding": "utf-8"}
            channel.basic_publish(amqp.Message(body, application_headers=headers, **told), routing_key=METADATA)

    job = submitted("afterwards")

    assert eventually(lambda: job.state == "succeeded"), stage.logs()
    lines = json_lines(worker.log.read_text())
    refused = [line["field"] for line in lines if line["event"] == "message refused"]
    assert refused == ["body", "headers.task", "headers.task", "body", "headers.eta", "headers.task"]
    assert eventually(lambda: seen(rabbit).message_count == 0)


def test_what_is_not_signed_is_not_run_where_there_are_keys(
    rabbit: PrivateRabbit, tmp_path: Path, inherited: dict[str, str]
) -> None:
    with with_a_circuit(rabbit, tmp_path, inherited, BRIDGE_LEDGER__SIGNING_KEYS="k" * 32) as stage:
        stage.controls.faults.add(Status(code=500, count=1, path="/stamp"))
        stage.ready(stage.worker("only"))
        signed = submitted("signed", "chain")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recording, "signed", lambda message: message)
            unsigned = submitted("unsigned")

        assert eventually(lambda: unsigned.state == "failed"), stage.logs()
        error = next(iter(Bridge().as_completed([unsigned], timeout=5))).error
        assert isinstance(error, MessageRefused)
        assert eventually(lambda: signed.state == "succeeded"), (signed.record, stage.logs())
        assert stage.effects() == {"/signed": 1}


def test_health_tells_what_waits_and_who_works(stage: Stage) -> None:
    for text in ("one", "two"):
        submitted(text)
    idle = Bridge().health()

    stage.ready(stage.worker("only"))

    assert (idle.waiting, idle.workers, idle.healthy) == (2, (), False)
    assert {queue.name: queue.depth for queue in idle.queues} == {METADATA: 2, ONEXTREE: 0, BULK: 0}
    (oldest,) = [queue.oldest_seconds for queue in idle.queues if queue.name == METADATA]
    assert oldest is not None
    assert oldest < 30
    assert eventually(lambda: Bridge().health().waiting == 0), stage.logs()
    assert [name.partition("@")[0] for name in Bridge().health().workers or ()] == ["only"]


def test_a_worker_answers_orders_and_tells_events(stage: Stage) -> None:
    stage.ready(stage.worker("only"))
    told: list[str] = []

    assert len(app.control.ping(timeout=20, limit=1) or ()) == 1
    with app.connection_for_read() as connection:
        kept = {"task-succeeded": lambda event: told.append(event["uuid"])}
        receiver: Any = app.events.Receiver(connection, handlers=kept)
        with receiver.consumer_context() as (listening, *_):
            job = submitted("told")

            def heard() -> bool:
                with suppress(TimeoutError):
                    listening.drain_events(timeout=1)
                return bool(told)

            assert eventually(heard), stage.logs()
    assert told == [job.id]


async def test_an_asyncio_program_submits_and_waits(stage: Stage) -> None:
    stage.ready(stage.worker("only"))

    async with AsyncBridge() as bridge:
        jobs = [await bridge.submit(stamped(text)) for text in ("one", "two")]
        ends = [await job for job in jobs]

    assert [end["path"] for end in ends] == ["/one", "/two"]
    assert stage.effects() == {"/one": 1, "/two": 1}
