"""A job that is run again makes no second stamp, with either service, whether or not it knows idempotency keys."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from starlette.responses import JSONResponse

from bridge_tasks import idempotency, once, operations
from bridge_tasks.clients import AsyncMetadataStampingClient, CircuitBreakerError, ClientError
from bridge_tasks.content import hashing
from bridge_tasks.idempotency import Effect
from bridge_tasks.models.content import InlineContent
from bridge_tasks.models.requests import CreateStamp, StampFile
from bridge_tasks.models.stamping import Stamped
from bridge_tasks.once import Wanted
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.sandbox.faults import (
    Disconnect,
    GarbageJson,
    Injected,
    Late,
    Reset,
    Status,
    StatusError,
    Truncate,
)
from tests.clients.in_process import metadata_client
from tests.clients.stamping_jobs import hash_of, new_text
from tests.never_suspending import finished
from tests.operations.world import AT_ONCE, World

STAMPED_ALREADY = f"# ONEX:uid=1,hash={'ab' * 32},ts=2026-01-01T00:00:00+00:00\n"


def job(text: str | None = None, **given: Any) -> CreateStamp:
    text = text or new_text()
    raw = text.encode()
    fields = {"file_hash": hash_of(text), "file_path": f"/{uuid4()}", "file_size": len(raw)}
    return CreateStamp(**{**fields, "content": InlineContent.of(raw), **given})


async def run(world: World, request: CreateStamp | StampFile, effect: Effect | None) -> Stamped:
    with idempotency.bound(effect):
        if isinstance(request, StampFile):
            return await operations.stamp_file(world.services, request)
        return await operations.create_stamp(world.services, request)


def first() -> Effect:
    return Effect(str(uuid4()))


async def test_a_first_run_looks_for_nothing(world: World) -> None:
    request = job()

    stamped = await run(world, request, first())

    assert stamped.stamp_id
    assert (world.looks, world.sent("/stamp"), world.times(request.file_path)) == (0, 1, 1)


@pytest.mark.parametrize("text", ["{}", "{}\n", "\n\n {}\n\n\n\nmore\n", STAMPED_ALREADY + "{}"])
async def test_a_resumed_run_finds_what_was_done_and_sends_nothing(world: World, text: str) -> None:
    request = job(text.format(new_text()))
    effect = first()
    before = await run(world, request, effect)

    after = await run(world, request, effect.again())

    assert world.sent("/stamp") == world.times(request.file_path) == 1
    assert (after.stamp_id, after.stamp_hash, after.created_at) == (
        before.stamp_id,
        before.stamp_hash,
        before.created_at,
    )
    assert (after.path, after.hash, after.namespace) == (before.path, before.hash, before.namespace)
    if world.service.dialect == "service":
        assert after.stamp == before.stamp


async def test_a_resumed_run_that_finds_nothing_stamps(world: World) -> None:
    request = job()

    stamped = await run(world, request, first().again())

    assert stamped.stamp_id
    assert (world.looks, world.times(request.file_path)) == (1, 1)


@pytest.mark.parametrize(
    "fault",
    [
        Disconnect(count=1, after_work=True),
        Reset(count=1, after_work=True),
        Truncate(count=1),
        Status(code=504, count=1, after_work=True),
        Status(code=500, count=1, after_work=True),
        GarbageJson(count=1, after_work=True),
        StatusError(count=1, after_work=True),
    ],
    ids=lambda fault: f"{fault.kind} {getattr(fault, 'code', '')}",
)
async def test_an_answer_that_was_lost_is_looked_up(world: World, fault: Injected) -> None:
    request = job()
    world.service.inject(fault.model_copy(update={"path": "/stamp", "method": "POST"}))

    stamped = await run(world, request, first())

    assert stamped.stamp_id
    assert (world.looks, world.sent("/stamp"), world.times(request.file_path)) == (1, 1, 1)


@pytest.mark.parametrize("fault", [GarbageJson(), Status(code=500)], ids=lambda fault: fault.kind)
async def test_what_may_have_been_done_and_cannot_be_looked_up_now_is_no_failure(
    world: World, fault: Injected
) -> None:
    request = job()
    world.service.inject(GarbageJson(count=1, after_work=True, path="/stamp", method="POST"))
    world.service.inject(fault.model_copy(update={"path": "/stamp/", "method": "GET"}))

    with pytest.raises(ClientError, match="it is not known yet") as unknown:
        await run(world, request, first())

    assert unknown.value.retryable
    assert world.times(request.file_path) == 1


@pytest.mark.parametrize("fault", [Disconnect(count=2), Reset(count=2), Status(code=502, count=2)])
async def test_a_request_that_was_lost_is_sent_again(world: World, fault: Injected) -> None:
    request = job()
    world.service.inject(fault.model_copy(update={"path": "/stamp", "method": "POST"}))

    stamped = await run(world, request, first())

    assert stamped.stamp_id
    assert (world.looks, world.sent("/stamp"), world.times(request.file_path)) == (2, 3, 1)


async def test_tries_end(world: World) -> None:
    request = job()
    world.service.inject(Disconnect(path="/stamp", method="POST"))

    with pytest.raises(ClientError) as failed:
        await run(world, request, first())

    assert failed.value.retryable
    assert (world.sent("/stamp"), world.times(request.file_path)) == (3, 0)


async def test_a_refusal_is_a_refusal_and_nothing_is_looked_for(world: World) -> None:
    world.service.inject(Status(code=413, path="/stamp", method="POST"))

    with pytest.raises(ClientError, match="413"):
        await run(world, job(), first())

    assert (world.looks, world.sent("/stamp")) == (0, 1)


async def test_what_cannot_be_processed_and_stands_nowhere_is_refused_under_its_own_name(world: World) -> None:
    world.service.inject(Status(code=422, path="/stamp", method="POST"))

    with pytest.raises(ClientError, match="422") as refused:
        await run(world, job(), first())

    assert not refused.value.retryable
    assert (world.looks, world.sent("/stamp")) == (1, 1)


async def test_a_service_that_asks_for_patience_is_not_asked_what_it_has(world: World) -> None:
    world.service.inject(Status(code=503, path="/stamp", method="POST"))

    with pytest.raises(ClientError, match="503"):
        await run(world, job(), first())

    assert (world.looks, world.sent("/stamp")) == (0, 3)


async def test_an_open_circuit_is_not_asked_either(world: World) -> None:
    await world.services.metadata.circuit_breaker.force_open()

    with pytest.raises(CircuitBreakerError) as kept_back:
        await run(world, job(), first())

    assert kept_back.value.unsent
    assert world.service.asked("/stamp") == []


async def test_a_request_that_arrives_after_all_stamps_no_more_where_keys_are_known(world: World) -> None:
    request = job()
    world.service.inject(Late(seconds=0.5, path="/stamp", method="POST", count=1))
    async with AsyncMetadataStampingClient(world.service.url, timeout=0.2, retry=AT_ONCE) as hasty:
        impatient = replace(world, services=replace(world.services, metadata=hasty))
        stamped = await run(impatient, request, first())
    world.wait_until_idle()

    assert stamped.stamp_id
    assert world.sent("/stamp") == 2
    assert world.times(request.file_path) == (1 if world.heeds_keys else 2), "nobody knew that it was on its way"


async def test_other_data_under_a_used_key_is_answered_with_what_stands(world: World) -> None:
    text, path, effect = new_text(), f"/{uuid4()}", first()
    before = await run(world, job(text, file_path=path, stamp_data={"took": 1}), effect)

    after = await run(world, job(text, file_path=path, stamp_data={"took": 2}), effect)

    assert after.stamp_id == before.stamp_id
    assert world.times(path) == (1 if world.heeds_keys else 2), "this run was not said to be resumed"


async def test_the_same_text_elsewhere_is_another_stamp(world: World) -> None:
    text = new_text()
    await run(world, job(text, namespace="one"), first())
    request = job(text, namespace="another")

    await run(world, request, first().again())

    assert world.times(request.file_path) == 1


async def test_without_an_effect_the_caller_decides(world: World) -> None:
    request = job()
    world.service.inject(Disconnect(count=1, after_work=True, path="/stamp", method="POST"))

    assert (await run(world, request, None)).stamp_id
    assert (world.looks, world.sent("/stamp"), world.times(request.file_path)) == (0, 2, 2)


@pytest.mark.parametrize("installed", [True, False])
async def test_the_hash_of_the_cleaned_text_is_asked_for_where_it_cannot_be_computed(
    world: World, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "available", lambda: installed)
    request = job(f"  {new_text()}\n")
    effect = first()
    await run(world, request, effect)

    await run(world, request, effect.again())

    assert world.times(request.file_path) == 1
    cleaned = world.service.dialect == "service"
    assert world.sent("/hash") == (1 if cleaned and not installed else 0)


async def test_the_whole_job_once_done_asks_for_no_intelligence_again(world: World) -> None:
    path = f"/{uuid4()}"
    request = StampFile(content=InlineContent.of(f"{new_text()}\n".encode()), file_path=path, context="login")
    effect = first()
    before = await run(world, request, effect)
    asked = world.services.onextree.get_metrics()["request_count"]

    after = await run(world, request, effect.again())

    assert world.services.onextree.get_metrics()["request_count"] == asked
    assert (after.stamp_id, after.path, after.hash, after.degraded) == (before.stamp_id, path, before.hash, False)
    assert world.times(path) == 1


async def test_the_whole_job_resumed_before_its_stamp_does_the_rest(world: World) -> None:
    path = f"/{uuid4()}"
    request = StampFile(content=InlineContent.of(new_text().encode()), file_path=path, context="login")

    stamped = await run(world, request, first().again())

    assert stamped.stamp_id
    assert (world.looks, world.times(path)) == (1, 1)


async def test_a_stamp_that_stands_says_that_its_intelligence_was_a_fallback(world: World) -> None:
    text, path, effect = new_text(), f"/{uuid4()}", first()
    degraded = {"intelligence": {"degraded": True, "context": "c"}, "degraded": True}
    await run(world, job(text, file_path=path, **degraded), effect)

    assert (await run(world, job(text, file_path=path), effect.again())).degraded


async def test_a_service_without_a_database_has_nothing_to_be_found() -> None:
    nothing = JSONResponse({"detail": {"error": [{"code": once.NO_DATABASE, "message": "x"}]}}, 503)
    async with metadata_client(nothing) as client:
        assert await once.standing(client, Wanted("ab" * 32, "/p", "n", None)) is None


def test_all_of_it_works_on_the_bottom_that_blocks(world_url: str) -> None:
    client = AsyncMetadataStampingClient(world_url, retry=AT_ONCE, bottom=blocking_bottom())
    text = f"{new_text()}\n"
    wanted = Wanted(hash_of(text), f"/{uuid4()}", "n", text)

    async def send(again: bool) -> dict[str, Any]:
        return await client.create_stamp(
            wanted.file_hash, wanted.file_path, 1, {}, None, "n", content=text, idempotent=again
        )

    with idempotency.bound(Effect("blocking", resumed=True)):
        made = finished(once.stamp(client, wanted, send, look=True))
        found = finished(once.stamp(client, wanted, send, look=True))
        finished(client.close())

    assert made["stamp_id"] == found["stamp_id"]
    assert found["degraded"] is None


@pytest.fixture
def world_url(kind: tuple[Any, bool]) -> str:
    url: str = kind[0].url
    return url
