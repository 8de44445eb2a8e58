"""The cache beneath the OnexTree client: behaviours.md, rows 99 to 106. What every cache promises: tests/cache."""

from typing import Any

import pytest

from bridge_tasks.cache import NullCache, cache_key
from bridge_tasks.clients import CacheEntry
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.resilience.policy.caching import EVERYTHING, Verdict
from tests.cache.questions import about, fill
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


async def test_a_null_cache_keeps_nothing_and_lets_everybody_ask() -> None:
    cache = NullCache()
    fill(cache, about("auth"))
    await cache.give_up(about("auth"), None, failed=True)
    await cache.drop(about("auth"))
    assert await cache.void(EVERYTHING)
    assert (len(cache), (await cache.stats()).size) == (0, 0)
    for _ in range(2):
        assert (await cache.look(about("auth"))).verdict is Verdict.FILL


@pytest.mark.parametrize("unfit", [2**64, "\ud800"])
def test_a_question_that_cannot_be_json_is_refused(unfit: Any) -> None:
    with pytest.raises(InvalidRequest, match="params"):
        cache_key("/intelligence", {"context": unfit})
