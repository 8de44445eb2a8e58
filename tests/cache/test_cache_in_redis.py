"""What only the cache in Redis promises: near copies, poisoned data, stepping clocks, and life without Redis."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
import redis.asyncio

from bridge_tasks import events
from bridge_tasks.cache import RedisCache
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.resilience.policy.caching import (
    EVERYTHING,
    Age,
    CacheRules,
    Verdict,
    mark_of_prefix,
    mark_of_tag,
)
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.cache.conftest import connection
from tests.cache.questions import RULES, TTL, about, fill, keep, look, value
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock

NEAR = replace(RULES, near_ttl=2.0, near_entries=4)
AUTH = about("auth", "namespace:a")
ENTRIES = "bridge:v1:cache:{test.1}"


class Counted:
    """A Redis client that counts what it is asked."""

    def __init__(self, client: redis.Redis) -> None:
        self._inner = BlockingRedis(client)
        self.asked = 0

    async def execute_command(self, *arguments: Any) -> Any:
        self.asked += 1
        return await self._inner.execute_command(*arguments)


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    """A Redis that the test may stop."""
    with PrivateRedis() as server:
        yield server


def cache_of(shared: SharedRedis, clock: StoppedClock, rules: CacheRules = RULES, **options: Any) -> RedisCache:
    options.setdefault("server_time", lambda: round(clock.now * 1_000_000))
    return RedisCache(shared, "test", rules=rules, clock=clock, chance=lambda: 0.0, **options)


# The near copies


def test_a_near_copy_costs_no_round_trip_and_is_counted_with_the_next(
    store: redis.Redis, clock: StoppedClock
) -> None:
    client = Counted(store)
    cache = cache_of(SharedRedis(client), clock, NEAR)
    fill(cache, AUTH)
    asked = client.asked
    for _ in range(10):
        assert value(look(cache, AUTH)) == "answer"
    assert client.asked == asked
    clock.advance(2.5)
    look(cache, AUTH)
    assert client.asked == asked + 1
    stats = finished(cache.stats())
    assert (stats.hits, stats.near) == (11, 10)


def test_near_copies_are_few(store: redis.Redis, clock: StoppedClock) -> None:
    client = Counted(store)
    cache = cache_of(SharedRedis(client), clock, NEAR)
    for number in range(20):
        fill(cache, about(str(number)))
    asked = client.asked
    for number in range(20):
        look(cache, about(str(number)))
    assert client.asked - asked >= 16


def test_a_near_copy_is_not_served_past_its_time(shared: SharedRedis, clock: StoppedClock) -> None:
    cache = cache_of(shared, clock, NEAR)
    fill(cache, AUTH, ttl=1.0)
    clock.advance(1.5)
    assert look(cache, AUTH).age is Age.STALE


@pytest.mark.parametrize("mark", [EVERYTHING, mark_of_tag("namespace:a"), mark_of_tag("another")])
def test_near_copies_go_when_somebody_makes_something_void_and_any_reply_tells_of_it(
    mark: str, shared: SharedRedis, clock: StoppedClock
) -> None:
    here, there = cache_of(shared, clock, NEAR), cache_of(shared, clock, NEAR)
    fill(here, AUTH)
    clock.advance(1)
    finished(there.void(mark))
    look(here, about("any other question"))
    assert value(look(here, AUTH)) == ("answer" if "another" in mark else None)


def test_who_makes_something_void_does_not_serve_it_any_more(shared: SharedRedis, clock: StoppedClock) -> None:
    cache = cache_of(shared, clock, NEAR)
    fill(cache, AUTH)
    clock.advance(1)
    finished(cache.void(mark_of_tag("namespace:a")))
    assert look(cache, AUTH).verdict is Verdict.FILL


# Poisoned data


@pytest.mark.parametrize(
    "poison",
    [
        b"",
        b"garbage",
        b"B1 ap 1 2 3\n",
        b"B1 ap {born} 999999999 999999999 999999999 0 ",
        b"B1 ap {born} 999999999 999999999 999999999 0 \0\0\0\0{}",
        b"B1 zz {born} 999999999 999999999 999999999 0 abcd{}",
        b"B1 az {born} 999999999 999999999 999999999 0 abcdnot zlib",
        b"B1 ap 99999999999999999999999999 9 9 9 9 abcd{}",
    ],
)
def test_a_poisoned_entry_is_dropped_and_counted_and_never_served(
    poison: bytes, shared: SharedRedis, store: redis.Redis, clock: StoppedClock, facts: list[events.Event]
) -> None:
    cache = cache_of(shared, clock)
    store.hset(ENTRIES, AUTH.key, poison.replace(b"{born}", b"%d" % (clock.now * 1_000_000)))
    found = look(cache, AUTH)
    assert (found.verdict, found.kept) == (Verdict.FILL, None)
    assert not store.hexists(ENTRIES, AUTH.key)
    stats = finished(cache.stats())
    if b"99999999999999999999999999" not in poison:  # merely from the future
        assert stats.dropped == 1
        assert any(isinstance(fact, events.CacheEntryDropped) for fact in facts)
    assert keep(cache, AUTH, "good", found.lease)
    assert value(look(cache, AUTH)) == "good"


@pytest.mark.parametrize("kind", ["cache", "cache-used", "cache-stats", "cache-voids"])
def test_somebody_else_s_data_under_our_names_give_way(
    kind: str, shared: SharedRedis, store: redis.Redis, clock: StoppedClock
) -> None:
    cache = cache_of(shared, clock)
    fill(cache, AUTH)
    key = f"bridge:v1:{kind}:{{test.1}}"
    store.delete(key)
    store.lpush(key, "not ours")
    look(cache, AUTH)
    clock.advance(5)
    fill(cache, AUTH, "good")
    assert value(look(cache, AUTH)) == "good"
    assert shared.available


def test_an_order_that_was_lost_costs_the_entries_and_not_the_bound(
    shared: SharedRedis, store: redis.Redis, clock: StoppedClock
) -> None:
    cache = cache_of(shared, clock, max_entries=3)
    for number in range(3):
        fill(cache, about(str(number)))
    store.delete("bridge:v1:cache-used:{test.1}")
    for number in range(10):
        clock.advance(1)
        fill(cache, about(f"new {number}"))
        assert len(cache) <= 3
        assert value(look(cache, about(f"new {number}"))) == "answer"


def test_every_key_goes_by_itself(shared: SharedRedis, store: redis.Redis, clock: StoppedClock) -> None:
    cache = cache_of(shared, clock)
    fill(cache, AUTH)
    finished(cache.void(mark_of_tag("x")))
    look(cache, about("another"))
    keys = list(store.scan_iter())
    assert len(keys) == 5
    assert all(store.pttl(key) > 0 for key in keys)


# Clocks


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_server_clock_that_steps_costs_answers_and_never_blocks_or_lies(
    hours: int, shared: SharedRedis, clock: StoppedClock
) -> None:
    step = [0]
    cache = cache_of(shared, clock, server_time=lambda: round((clock.now + step[0] + 1e6) * 1_000_000))
    fill(cache, AUTH)
    look(cache, about("held by one who died"))
    finished(cache.void(mark_of_tag("other")))
    step[0] = hours * 3600
    clock.advance(1)
    # Nothing from the other time is served as fresh, no lease from it holds, no mark from it voids for long.
    found = look(cache, AUTH)
    assert found.verdict is Verdict.FILL
    assert look(cache, about("held by one who died")).verdict is Verdict.FILL
    keep(cache, AUTH, "new", found.lease)
    assert value(look(cache, AUTH)) == "new"
    tagged = about("tagged", "other")
    fill(cache, tagged)
    clock.advance(1)
    lease = look(cache, tagged).lease
    keep(cache, tagged, "again", lease)
    assert value(look(cache, tagged)) in ("answer", "again")


@pytest.mark.parametrize("hours", [-1, 1])
def test_client_clocks_an_hour_apart_do_not_matter(hours: int, shared: SharedRedis, clock: StoppedClock) -> None:
    other = StoppedClock(clock.now + hours * 3600)
    here = RedisCache(shared, "test", rules=NEAR, clock=clock)
    there = RedisCache(shared, "test", rules=NEAR, clock=other)
    fill(here, AUTH)
    found = look(there, AUTH)
    assert (found.verdict, found.age, value(found)) == (Verdict.SERVE, Age.FRESH, "answer")


# What is sent


def test_a_prefix_longer_than_what_is_compared_is_cut_and_still_meets_what_it_names(
    shared: SharedRedis, clock: StoppedClock
) -> None:
    long = about("ä" * 300)
    here, there = cache_of(shared, clock), cache_of(shared, clock)
    fill(here, long)
    clock.advance(1)
    finished(there.void(mark_of_prefix("ä" * 299)))
    assert look(here, long).verdict is Verdict.FILL


def test_tags_and_subjects_that_are_no_text_hurt_nobody(shared: SharedRedis, clock: StoppedClock) -> None:
    odd = replace(about("auth", "\ud800", "{}", "", "a b\r\n"), subject="\ud800 \0")
    cache = cache_of(shared, clock)
    fill(cache, odd)
    assert value(look(cache, odd)) == "answer"
    clock.advance(1)
    finished(cache.void(mark_of_tag("a b\r\n")))
    assert look(cache, odd).verdict is Verdict.FILL


async def test_asyncio_callers_share_with_tasks(
    cache_server: PrivateRedis, shared: SharedRedis, clock: StoppedClock
) -> None:
    fill(cache_of(shared, clock), AUTH)
    async with redis.asyncio.Redis(port=cache_server.port) as client:
        cache = cache_of(SharedRedis(client), clock)
        assert value(await cache.look(AUTH)) == "answer"
        leases = await asyncio.gather(*(cache.look(about("another")) for _ in range(16)))
        assert sorted(found.verdict for found in leases) == [Verdict.FILL] + [Verdict.WAIT] * 15
        assert await cache.void(EVERYTHING)
        assert (await cache.stats()).size == 0


# Without Redis


def test_when_redis_is_lost_the_process_goes_on_with_what_it_holds_and_redis_rules_again_when_it_is_back(
    server: PrivateRedis, clock: StoppedClock, facts: list[events.Event]
) -> None:
    with connection(server, 1.0) as client:
        shared = SharedRedis(BlockingRedis(client), clock=clock, chance=lambda: 0.5)
        cache = cache_of(shared, clock, NEAR)
        fill(cache, AUTH)
        server.kill()
        clock.advance(3)
        # Held near, and past the trust in it: served all the same.
        found = look(cache, AUTH)
        assert (found.verdict, value(found)) == (Verdict.SERVE, "answer")
        # New answers are kept here, up to the whole bound, one caller asking at a time.
        questions = [about(f"new {number}") for number in range(50)]
        for question in questions:
            assert fill(cache, question)
        assert all(value(look(cache, question)) == "answer" for question in questions)
        assert look(cache, about("next")).verdict is Verdict.FILL
        assert look(cache, about("next")).verdict is Verdict.WAIT
        assert not finished(cache.stats()).shared
        assert not finished(cache.void(mark_of_tag("x")))
        # Back, and empty.
        server.start()
        clock.advance(6)
        assert look(cache, questions[0]).verdict is Verdict.FILL
        assert finished(cache.stats()).shared
    lost = [fact for fact in facts if isinstance(fact, events.StoreLost | events.StoreRegained)]
    assert [type(fact) for fact in lost] == [events.StoreLost, events.StoreRegained]


def test_a_lease_of_redis_is_no_lease_here_and_costs_nothing_but_another_asking(
    server: PrivateRedis, clock: StoppedClock
) -> None:
    with connection(server, 1.0) as client:
        cache = cache_of(SharedRedis(BlockingRedis(client), clock=clock), clock)
        lease = look(cache, AUTH).lease
        server.kill()
        finished(cache.give_up(AUTH, lease, failed=True))
        assert keep(cache, AUTH, "answer", lease)
        assert value(look(cache, AUTH)) == "answer"
        finished(cache.drop(AUTH))
        assert look(cache, AUTH).verdict is Verdict.FILL
        finished(cache.close())


def test_a_frozen_redis_costs_one_time_out_and_then_nothing(server: PrivateRedis, clock: StoppedClock) -> None:
    with connection(server, 0.05) as client:
        counted = Counted(client)
        cache = cache_of(SharedRedis(counted, clock=clock, chance=lambda: 0.5), clock)
        fill(cache, AUTH)
        server.pause()
        try:
            asked = counted.asked
            for number in range(100):
                look(cache, about(str(number)))
            assert counted.asked - asked == 1
        finally:
            server.resume()


def test_a_read_only_redis_is_as_good_as_none(server: PrivateRedis, clock: StoppedClock) -> None:
    with connection(server, 1.0) as client:
        cache = cache_of(SharedRedis(BlockingRedis(client), clock=clock), clock)
        client.replicaof("127.0.0.1", "1")
        assert fill(cache, AUTH)
        assert value(look(cache, AUTH)) == "answer"
        assert not finished(cache.stats()).shared


def test_forgotten_scripts_are_loaded_again(shared: SharedRedis, store: redis.Redis, clock: StoppedClock) -> None:
    cache = cache_of(shared, clock)
    fill(cache, AUTH)
    store.script_flush()
    assert value(look(cache, AUTH)) == "answer"
    assert shared.available


def test_an_empty_restart_serves_nothing_old_and_works_on(server: PrivateRedis, clock: StoppedClock) -> None:
    with connection(server, 1.0) as client:
        cache = cache_of(SharedRedis(BlockingRedis(client), clock=clock), clock)
        fill(cache, AUTH)
        client.flushall()
        assert look(cache, AUTH).verdict is Verdict.FILL


@pytest.mark.parametrize("name", ["", "with}brace", "Upper", "x" * 65])
def test_a_name_that_would_break_the_keys_is_refused(name: str, shared: SharedRedis) -> None:
    with pytest.raises(ValueError, match="name"):
        RedisCache(shared, name)


def test_another_version_is_another_cache(shared: SharedRedis, clock: StoppedClock) -> None:
    fill(cache_of(shared, clock), AUTH)
    assert look(cache_of(shared, clock, replace(RULES, version="2")), AUTH).verdict is Verdict.FILL
    assert value(look(cache_of(shared, clock), AUTH)) == "answer"


def test_large_answers_lie_compressed_and_come_back_whole(
    shared: SharedRedis, store: redis.Redis, clock: StoppedClock
) -> None:
    cache = cache_of(shared, clock)
    fill(cache, AUTH, "x" * 100_000)
    assert store.hstrlen(ENTRIES, AUTH.key) < 2000
    assert value(look(cache, AUTH)) == "x" * 100_000


def test_early_refreshes_come_by_chance_and_more_likely_for_costly_answers(
    shared: SharedRedis, clock: StoppedClock
) -> None:
    eager = replace(RULES, early_refresh=1.0)
    drawn = [0.0]
    cache = RedisCache(
        shared,
        "test",
        rules=eager,
        clock=clock,
        chance=lambda: drawn[0],
        server_time=lambda: round(clock.now * 1_000_000),
    )
    keep(cache, AUTH, "costly", None, took=10.0)
    clock.advance(TTL - 30)  # born 10 s before: 20 s left, that is two of its costs
    drawn[0] = 0.86  # -ln(0.14) is 1.97 costs
    assert look(cache, AUTH).age is Age.FRESH
    drawn[0] = 0.87  # and -ln(0.13) is 2.04
    found = look(cache, AUTH)
    assert (found.age, found.verdict, value(found)) == (Age.EARLY, Verdict.FILL, "costly")
    assert look(cache, AUTH).verdict is Verdict.SERVE, "one refresh at a time"
