"""Calls that stamp carry the key of the bound effect, with either service; no others do."""

from bridge_tasks import idempotency
from bridge_tasks.clients import AsyncMetadataStampingClient
from bridge_tasks.idempotency import Effect
from tests.clients.mocked import answering
from tests.clients.stamping_jobs import hash_of, item, new_text, stamp
from tests.running_service import RunningService

BATCH = {"status": "success", "data": {"total": 1, "successful": 1, "failed": 0, "results": [{"success": True}]}}


def keys_sent(service: RunningService, path: str = "") -> list[str | None]:
    return [record.headers.get("idempotency-key") for record in service.asked(path)]


async def test_a_stamp_carries_its_key_and_a_second_one_another(
    client: AsyncMetadataStampingClient, metadata: RunningService
) -> None:
    first, second = new_text(), new_text()
    for effect in (Effect("job"), Effect("job", resumed=True)):
        with idempotency.bound(effect):
            await stamp(client, first)
            await stamp(client, second)

    one, other, again, another = keys_sent(metadata, "/stamp")
    assert one is not None
    assert one.startswith('"')
    assert (one, other) == (again, another)
    assert one != other


async def test_what_only_reads_carries_none(client: AsyncMetadataStampingClient, metadata: RunningService) -> None:
    text = new_text()
    with idempotency.bound(Effect("job")):
        await client.generate_hash(text.encode())
        await client.get_stamp(hash_of(text))
        await client.validate_stamp(text)
        await client.health_check()

    assert set(keys_sent(metadata)) == {None}


async def test_without_an_effect_no_key_is_made_up(
    client: AsyncMetadataStampingClient, metadata: RunningService
) -> None:
    await stamp(client, new_text())
    await client.batch_create_stamps([item(new_text())])

    assert set(keys_sent(metadata)) == {None}


async def test_an_item_keeps_its_key_in_whatever_batch_it_is_sent() -> None:
    items = [item(new_text()) for _ in range(3)]
    client = AsyncMetadataStampingClient("http://service")
    with answering(client, BATCH) as http, idempotency.bound(Effect("job")):
        await client.batch_create_stamps(items)
        await client.batch_create_stamps(items[1:])
        await client.batch_create_stamps(items)
    whole, rest, again = (call.kwargs for call in http.request.call_args_list[-3:])

    keys = [one["idempotency_key"] for one in whole["json"]["items"]]
    assert len(set(keys)) == 3
    assert [one["idempotency_key"] for one in rest["json"]["items"]] == keys[1:]
    assert whole["headers"]["Idempotency-Key"] == again["headers"]["Idempotency-Key"]
    assert whole["headers"]["Idempotency-Key"] != rest["headers"]["Idempotency-Key"]


async def test_a_key_that_an_item_has_already_wins() -> None:
    client = AsyncMetadataStampingClient("http://service")
    with answering(client, BATCH) as http, idempotency.bound(Effect("job")):
        await client.batch_create_stamps([item(new_text(), idempotency_key="its-own")])

    assert http.request.call_args.kwargs["json"]["items"][0]["idempotency_key"] == "its-own"
