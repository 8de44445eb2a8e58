"""A job whose file is hashed by the worker: the same hash, one call less, a sample that the service confirms."""

from collections import Counter

import pytest

from bridge_tasks import operations
from bridge_tasks.clients import ClientError
from bridge_tasks.models.content import InlineContent
from bridge_tasks.models.fields import Hashing
from bridge_tasks.models.requests import StampFile
from tests.clients.stamping_jobs import hash_of, new_text
from tests.operations.world import World


def job(text: str, hashing: Hashing | None = "local") -> StampFile:
    return StampFile(
        content=InlineContent.of(text.encode()), file_path=f"/{hash_of(text)}", context="c", hashing=hashing
    )


async def test_the_service_is_asked_for_the_first_hash_and_then_for_one_in_a_hundred(world: World) -> None:
    texts = [new_text() for _ in range(102)]

    stamped = [await operations.stamp_file(world.services, job(text)) for text in texts]

    assert [one.hash for one in stamped] == [hash_of(text) for text in texts]
    assert Counter(world.times(one.path) for one in stamped) == {1: 102}
    assert (world.sent("/hash"), world.sent("/stamp")) == (2, 102)


async def test_by_default_the_service_hashes(world: World) -> None:
    await operations.stamp_file(world.services, job(new_text(), None))
    await operations.stamp_file(world.services, job(new_text(), "service"))
    assert world.sent("/hash") == 2


async def test_a_service_that_hashes_otherwise_is_not_believed_and_nothing_is_stamped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge_tasks.content.hashing.blake3_of", lambda _: "0" * 64)
    with pytest.raises(ClientError, match="not the one computed here"):
        await operations.stamp_file(world.services, job(new_text()))
    assert world.sent("/stamp") == 0
