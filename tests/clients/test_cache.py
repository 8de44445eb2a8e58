"""The cache beneath the OnexTree client: behaviours.md, rows 99 to 106."""

from typing import Any

import pytest

from bridge_tasks.cache import LocalCache, NullCache, cache_key
from bridge_tasks.clients import CacheEntry
from bridge_tasks.errors import InvalidRequest
from tests.stopped_clock import StoppedClock


def test_an_entry_counts_its_hits(clock: StoppedClock) -> None:  # row 99
    entry = CacheEntry({"a": 1}, ttl=300, clock=clock)
    assert (entry.hits, entry.created_at, entry.last_access) == (0, clock.now, clock.now)
    clock.advance(5)
    assert entry.access() == {"a": 1}
    assert (entry.hits, entry.last_access) == (1, clock.now)


def test_an_entry_expires_after_its_time_and_not_at_it(clock: StoppedClock) -> None:  # row 99
    entry = CacheEntry("data", ttl=1, clock=clock)
    assert not entry.is_expired()
    clock.advance(1)
    assert not entry.is_expired()
    clock.advance(0.1)
    assert entry.is_expired()


def test_an_entry_lives_five_minutes_by_default() -> None:  # row 99
    assert CacheEntry("data").ttl == 300


async def test_an_answer_is_kept_as_a_copy(clock: StoppedClock) -> None:  # row 106, the other way round
    cache = LocalCache(clock=clock)
    kept = {"list": [1]}
    await cache.put("key", kept, 60)
    kept["list"].append(2)
    first = await cache.get("key")
    assert first == {"list": [1]}
    first["list"].append(3)
    assert await cache.get("key") == {"list": [1]}


async def test_an_expired_answer_is_gone_for_good(clock: StoppedClock) -> None:
    cache = LocalCache(clock=clock)
    await cache.put("key", 1, ttl=60)
    clock.advance(61)
    assert await cache.get("key") is None
    assert len(cache) == 0


async def test_a_full_cache_drops_the_share_that_was_used_least_recently() -> None:  # row 104
    cache = LocalCache(max_entries=10, eviction_ratio=0.2)
    for number in range(10):
        await cache.put(str(number), number, 60)
    assert await cache.get("0") == 0
    await cache.put("new", 10, 60)
    kept = {key for key in ["new", *map(str, range(10))] if await cache.get(key) is not None}
    assert kept == {"new", "0", *map(str, range(3, 10))}


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_tiny_cache_stays_tiny(size: int) -> None:  # row 104, the other way round
    cache = LocalCache(max_entries=size)
    for number in range(10):
        await cache.put(str(number), number, 60)
        assert len(cache) <= size
    assert await cache.get("9") == 9


async def test_the_size_never_passes_the_bound() -> None:  # row 104
    cache = LocalCache()
    for number in range(1500):
        await cache.put(str(number), number, 60)
        assert len(cache) <= 1000


async def test_putting_again_replaces(clock: StoppedClock) -> None:
    cache = LocalCache(max_entries=2, clock=clock)
    await cache.put("key", 1, 60)
    await cache.put("key", 2, 60)
    assert (len(cache), await cache.get("key")) == (1, 2)


async def test_a_cleared_cache_is_empty() -> None:  # row 101
    cache = LocalCache()
    await cache.put("key", 1, 60)
    await cache.clear()
    assert (len(cache), await cache.get("key")) == (0, None)


async def test_a_null_cache_keeps_nothing() -> None:
    cache = NullCache()
    await cache.put("key", 1, 60)
    await cache.clear()
    assert len(cache) == 0
    await cache.get("key")


@pytest.mark.parametrize("unfit", [2**64, "\ud800"])
async def test_an_answer_that_cannot_be_packed_is_let_go(unfit: Any) -> None:
    cache = LocalCache()
    await cache.put("key", {"value": unfit}, 60)
    assert len(cache) == 0


@pytest.mark.parametrize("unfit", [2**64, "\ud800"])
def test_a_question_that_cannot_be_json_is_refused(unfit: Any) -> None:
    with pytest.raises(InvalidRequest, match="params"):
        cache_key("/intelligence", {"context": unfit})
