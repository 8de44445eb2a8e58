"""A batch that is run again sends only what is missing, and tells of all as if it had not been."""

from typing import Any
from uuid import uuid4

import pytest

from bridge_tasks import idempotency, operations
from bridge_tasks.clients import ClientError, ServiceUnavailableError
from bridge_tasks.idempotency import Effect
from bridge_tasks.models.content import InlineContent
from bridge_tasks.models.requests import BatchCreateStamps, BatchItem
from bridge_tasks.models.stamping import BatchStamped
from bridge_tasks.sandbox.faults import Disconnect, GarbageJson, Injected, Status
from tests.clients.stamping_jobs import hash_of, new_text
from tests.operations.world import World

SHAPE = {"id", "success", "error", "stamp_id", "file_hash", "stamp"}


def item(text: str | None = None, **given: Any) -> BatchItem:
    text = text or f"{new_text()}\n"
    fields = {"file_hash": hash_of(text), "file_path": f"/{uuid4()}", "file_size": 1, "id": text.strip()}
    return BatchItem(**{**fields, "content": InlineContent.of(text.encode()), **given})


async def run(world: World, items: list[BatchItem], effect: Effect | None) -> BatchStamped:
    with idempotency.bound(effect):
        return await operations.batch_create_stamps(world.services, BatchCreateStamps(items=items))


def first() -> Effect:
    return Effect(str(uuid4()))


def times(world: World, items: list[BatchItem]) -> list[int]:
    return [world.times(one.file_path) for one in items]


def lost(fault: Injected) -> Injected:
    return fault.model_copy(update={"path": "/batch"})


async def test_a_first_run_looks_for_nothing(world: World) -> None:
    items = [item() for _ in range(3)]

    stamped = await run(world, items, first())

    assert (stamped.total, stamped.successful, stamped.failed) == (3, 3, 0)
    assert (world.looks, world.sent("/batch"), times(world, items)) == (0, 1, [1, 1, 1])


async def test_a_resumed_run_sends_what_is_missing_and_tells_of_all_in_order(world: World) -> None:
    items = [item() for _ in range(5)]
    effect = first()
    before = await run(world, [items[1], items[3]], effect)

    after = await run(world, items, effect.again())

    assert times(world, items) == [1] * 5
    assert (after.total, after.successful, after.failed) == (5, 5, 0)
    assert [one["id"] for one in after.results if "id" in one and one["id"] in {items[1].id, items[3].id}] == [
        items[1].id,
        items[3].id,
    ]
    assert [after.results[at]["stamp_id"] for at in (1, 3)] == [one["stamp_id"] for one in before.results]
    if world.service.dialect == "service":
        assert all(one.keys() >= SHAPE for one in after.results)
        assert [one["id"] for one in after.results] == [one.id for one in items]
    assert world.service.asked("/batch")[-1].file_hash.count(",") == 2  # type: ignore[union-attr] # it has some


async def test_a_resumed_run_of_what_is_done_sends_nothing(world: World) -> None:
    items = [item() for _ in range(3)]
    effect = first()
    await run(world, items, effect)

    after = await run(world, items, effect.again())

    assert (after.successful, world.sent("/batch"), times(world, items)) == (3, 1, [1, 1, 1])


@pytest.mark.parametrize(
    "fault",
    [
        Disconnect(count=1, after_work=True),
        GarbageJson(count=1, after_work=True),
        Status(code=504, count=1, after_work=True),
    ],
    ids=lambda fault: fault.kind,
)
async def test_an_answer_that_was_lost_is_looked_up_item_by_item(world: World, fault: Injected) -> None:
    items = [item() for _ in range(3)]
    world.service.inject(lost(fault))

    stamped = await run(world, items, first())

    assert (stamped.successful, world.sent("/batch"), world.looks) == (3, 1, 3)
    assert times(world, items) == [1, 1, 1]


async def test_a_request_that_was_lost_is_sent_again(world: World) -> None:
    items = [item() for _ in range(2)]
    world.service.inject(lost(Disconnect(count=1)))

    stamped = await run(world, items, first())

    assert (stamped.successful, world.sent("/batch"), times(world, items)) == (2, 2, [1, 1])


async def test_without_an_effect_a_lost_answer_is_the_caller_s(world: World) -> None:
    world.service.inject(lost(Disconnect(count=1, after_work=True)))

    with pytest.raises(ServiceUnavailableError):
        await run(world, [item()], None)

    assert (world.looks, world.sent("/batch")) == (0, 1)


@pytest.mark.parametrize("effect", [None, Effect("another-job")])
async def test_items_that_fail_because_they_stand_have_succeeded(world: World, effect: Effect | None) -> None:
    items = [item() for _ in range(3)]
    await run(world, items[1:2], first())

    stamped = await run(world, items, effect)

    assert [one["success"] for one in stamped.results] == [True] * 3
    assert stamped.results[1]["error"] is None
    assert stamped.results[1]["stamp_id"]
    assert (stamped.successful, stamped.failed, times(world, items)) == (3, 0, [1, 1, 1])


async def test_a_batch_that_failed_as_a_whole_because_it_stands_has_succeeded(world: World) -> None:
    items = [item() for _ in range(3)]
    await run(world, items, first())

    stamped = await run(world, items, None)

    assert (stamped.successful, stamped.failed, times(world, items)) == (3, 0, [1, 1, 1])


async def test_what_stands_elsewhere_is_a_failure(world: World) -> None:
    text = new_text()
    await run(world, [item(text, namespace="one")], first())
    here = item(text, namespace="another")

    stamped = await run(world, [here, item()], first())

    assert [one["success"] for one in stamped.results] == [False, True]
    assert "already stamped" in stamped.results[0]["error"]


async def test_a_batch_of_which_everything_really_failed_is_an_error_with_its_results(world: World) -> None:
    text = new_text()
    await run(world, [item(text, namespace="one")], first())

    with pytest.raises(ClientError, match="Batch stamping failed") as failed:
        await run(world, [item(text, namespace="another")], first())

    assert failed.value.data is not None
    assert [one["success"] for one in failed.value.data["results"]] == [False]


async def test_a_key_of_its_own_makes_an_item_one_in_all_batches(world: World) -> None:
    mine = item(idempotency_key="file-1-" + uuid4().hex)
    await run(world, [mine], first())

    stamped = await run(world, [mine, item()], first())

    assert (stamped.successful, world.times(mine.file_path)) == (2, 1)
    assert world.looks == (0 if world.heeds_keys else 1)
