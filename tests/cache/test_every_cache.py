"""What every `Cache` promises, whichever place it keeps answers in. Rows are behaviours.md's."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge_tasks.cache import Cache, Found, Kept, LocalCache, RedisCache
from bridge_tasks.resilience.policy.caching import (
    EVERYTHING,
    Age,
    Verdict,
    mark_of_prefix,
    mark_of_tag,
)
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from tests.cache.questions import RULES, TTL, about, fill, keep, look, served, value
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock

OpenCache = Callable[..., Cache]
AUTH = about("auth")


@pytest.fixture(params=["local", "redis"])
def open_cache(request: pytest.FixtureRequest, clock: StoppedClock) -> OpenCache:
    """Make a cache by the stopped clock; all of one test's caches in Redis are the same."""

    def local(max_entries: int = 1000, eviction_ratio: float = 0.2) -> Cache:
        return LocalCache(max_entries, eviction_ratio, rules=RULES, clock=clock, chance=lambda: 0.0)

    def in_redis(max_entries: int = 1000, eviction_ratio: float = 0.2) -> Cache:
        return RedisCache(
            request.getfixturevalue("shared"),
            "test",
            max_entries,
            eviction_ratio,
            rules=RULES,
            clock=clock,
            chance=lambda: 0.0,
            server_time=lambda: round(clock.now * 1_000_000),
        )

    return local if request.param == "local" else in_redis


@pytest.fixture
def cache(open_cache: OpenCache) -> Cache:
    return open_cache()


def test_an_unknown_question_is_the_first_caller_s_to_ask(cache: Cache) -> None:
    found = look(cache, AUTH)
    assert (found.verdict, found.age, found.kept) == (Verdict.FILL, Age.GONE, None)
    assert found.lease
    assert not found.usable


def test_what_is_kept_is_served_until_its_time_is_over(cache: Cache, clock: StoppedClock) -> None:
    assert fill(cache, AUTH)
    clock.advance(TTL)
    found = look(cache, AUTH)
    assert (found.verdict, found.age, value(found)) == (Verdict.SERVE, Age.FRESH, "answer")
    assert found.kept
    assert (found.kept.age, found.kept.stale) == (TTL, False)
    clock.advance(1 / 64)
    assert look(cache, AUTH).age is Age.STALE


def test_an_answer_is_as_old_as_the_moment_it_was_asked_for(cache: Cache, clock: StoppedClock) -> None:
    lease = look(cache, AUTH).lease
    clock.advance(3)
    keep(cache, AUTH, "answer", lease, took=3)
    found = look(cache, AUTH)
    assert found.kept
    assert (found.kept.age, found.kept.life.cost) == (3, 3)


def test_a_stale_answer_is_served_to_all_but_the_one_who_asks_anew(cache: Cache, clock: StoppedClock) -> None:
    fill(cache, AUTH)
    clock.advance(TTL + 1)
    first, second = look(cache, AUTH), look(cache, AUTH)
    assert (first.verdict, value(first)) == (Verdict.FILL, "answer")
    assert (second.verdict, value(second)) == (Verdict.SERVE, "answer")
    assert second.kept
    assert second.kept.stale
    keep(cache, AUTH, "newer", first.lease)
    assert value(look(cache, AUTH)) == "newer"


def test_an_answer_in_reserve_is_no_answer_unless_the_service_fails(cache: Cache, clock: StoppedClock) -> None:
    fill(cache, AUTH)
    clock.advance(TTL + 17)
    first, second = look(cache, AUTH), look(cache, AUTH)
    assert (first.verdict, first.age, value(first)) == (Verdict.FILL, Age.RESERVE, "answer")
    assert (second.verdict, second.usable) == (Verdict.WAIT, False)
    finished(cache.give_up(AUTH, first.lease, failed=True))
    assert look(cache, AUTH).verdict is Verdict.SERVE


def test_an_answer_is_gone_for_good_when_even_the_reserve_is_over(cache: Cache, clock: StoppedClock) -> None:
    fill(cache, AUTH)
    clock.advance(TTL + 257)
    assert look(cache, AUTH).kept is None
    assert len(cache) in (0, 1)
    look(cache, about("another"))
    assert len(cache) == 0


def test_after_a_failed_refresh_nobody_tries_another_for_a_while(cache: Cache, clock: StoppedClock) -> None:
    fill(cache, AUTH)
    clock.advance(TTL + 1)
    finished(cache.give_up(AUTH, look(cache, AUTH).lease, failed=True))
    assert look(cache, AUTH).verdict is Verdict.SERVE
    clock.advance(7)
    assert look(cache, AUTH).verdict is Verdict.SERVE
    clock.advance(1)
    assert look(cache, AUTH).verdict is Verdict.FILL


def test_only_who_waited_shares_in_a_failure(cache: Cache) -> None:
    finished(cache.give_up(AUTH, look(cache, AUTH).lease, failed=True))
    assert look(cache, AUTH, waiting=True).verdict is Verdict.FAILED
    assert look(cache, AUTH).verdict is Verdict.FILL


def test_a_lease_handed_back_in_peace_is_free_at_once(cache: Cache) -> None:
    lease = look(cache, AUTH).lease
    assert look(cache, AUTH).verdict is Verdict.WAIT
    finished(cache.give_up(AUTH, lease, failed=False))
    assert look(cache, AUTH, waiting=True).verdict is Verdict.FILL


def test_a_dead_holder_costs_a_lease(cache: Cache, clock: StoppedClock) -> None:
    look(cache, AUTH)
    clock.advance(4 - 1 / 64)
    assert look(cache, AUTH, waiting=True).verdict is Verdict.WAIT
    clock.advance(1 / 64)
    assert look(cache, AUTH, waiting=True).verdict is Verdict.FILL


def test_one_s_late_end_does_not_end_another_s_lease(cache: Cache, clock: StoppedClock) -> None:
    late = look(cache, AUTH).lease
    clock.advance(4)
    look(cache, AUTH)
    finished(cache.give_up(AUTH, late, failed=True))
    assert look(cache, AUTH).verdict is Verdict.WAIT


def test_a_late_answer_is_an_answer_unless_a_newer_one_is_there(cache: Cache, clock: StoppedClock) -> None:
    late = look(cache, AUTH).lease
    clock.advance(5)
    other = look(cache, AUTH).lease
    assert keep(cache, AUTH, "late", late, took=5)
    clock.advance(1)
    assert keep(cache, AUTH, "newer", other, took=1)
    assert not keep(cache, AUTH, "older", None, took=6)
    assert value(look(cache, AUTH)) == "newer"


def test_of_64_threads_one_gets_the_lease(cache: Cache) -> None:
    together = threading.Barrier(64)

    def one(_: int) -> Found:
        together.wait()
        return look(cache, AUTH)

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(one, range(64)))
    assert sorted(one.verdict for one in found) == [Verdict.FILL] + [Verdict.WAIT] * 63
    assert len({one.lease for one in found}) == 2


# Size


def test_a_full_cache_drops_the_share_that_was_used_least_recently(
    open_cache: OpenCache, clock: StoppedClock
) -> None:  # row 104
    cache = open_cache(10, 0.2)
    questions = [about(str(number)) for number in range(11)]
    for question in questions[:10]:
        fill(cache, question)
        clock.advance(1 / 64)
    look(cache, questions[0])
    clock.advance(1 / 64)
    fill(cache, questions[10])
    assert served(cache, questions) == {"0", *map(str, range(3, 11))}
    assert finished(cache.stats()).evicted == 2


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_tiny_cache_stays_tiny(
    size: int, open_cache: OpenCache, clock: StoppedClock
) -> None:  # row 104, the other way round
    cache = open_cache(size)
    for number in range(10):
        fill(cache, about(str(number)))
        clock.advance(1 / 64)
        assert len(cache) <= size
    assert value(look(cache, about("9"))) == "answer"


def test_the_size_never_passes_the_bound(open_cache: OpenCache, clock: StoppedClock) -> None:  # row 104
    cache = open_cache(100)
    for number in range(150):
        fill(cache, about(str(number)))
        clock.advance(1 / 64)
        assert len(cache) <= 100
    # Lowering the bound takes effect with the next answer.
    cache = cache if isinstance(cache, LocalCache) else open_cache(10)
    if isinstance(cache, LocalCache):
        cache.max_entries = 10
    fill(cache, about("new"))
    assert len(cache) <= 10


def test_an_answer_beyond_the_largest_size_is_not_kept_and_the_lease_is_free(cache: Cache) -> None:
    lease = look(cache, AUTH).lease
    assert not keep(cache, AUTH, "x" * RULES.max_bytes, lease)
    assert look(cache, AUTH).verdict is Verdict.FILL


def test_keeping_again_replaces(cache: Cache, clock: StoppedClock) -> None:
    fill(cache, AUTH, 1)
    clock.advance(1)
    keep(cache, AUTH, 2, None)
    assert (value(look(cache, AUTH)), len(cache)) == (2, 1)


# Making void


def test_clearing_forgets_every_answer_and_every_count(cache: Cache, clock: StoppedClock) -> None:  # row 101
    fill(cache, AUTH)
    look(cache, AUTH)
    assert finished(cache.void(EVERYTHING))
    stats = finished(cache.stats())
    assert (stats.size, stats.hits, stats.misses, stats.fills, len(cache)) == (0, 0, 0, 0, 0)
    clock.advance(1)
    fill(cache, AUTH, "new")
    assert value(look(cache, AUTH)) == "new"


@pytest.mark.parametrize("mark", [EVERYTHING, mark_of_tag("namespace:a"), mark_of_prefix("src/auth")])
def test_an_answer_that_was_being_asked_for_when_it_was_made_void_is_not_kept(
    mark: str, cache: Cache, clock: StoppedClock
) -> None:
    question = about("src/auth/login.py", "namespace:a")
    lease = look(cache, question).lease
    clock.advance(1)
    finished(cache.void(mark))
    clock.advance(1)
    assert not keep(cache, question, "from before", lease, took=2)
    assert look(cache, question).verdict is Verdict.FILL, "and the lease is free"


def test_a_tag_makes_void_what_has_it(cache: Cache, clock: StoppedClock) -> None:
    of_a, of_b, of_both = about("1", "a"), about("2", "b"), about("3", "a", "b")
    for question in (of_a, of_b, of_both):
        fill(cache, question)
    clock.advance(1)
    finished(cache.void(mark_of_tag("a")))
    assert served(cache, [of_a, of_b, of_both]) == {"2"}
    assert finished(cache.stats()).void == 2


def test_a_prefix_makes_void_what_is_about_something_beginning_so(cache: Cache, clock: StoppedClock) -> None:
    questions = [about(subject) for subject in ("src/auth", "src/auth/login.py", "src/api", "docs/src/auth")]
    for question in questions:
        fill(cache, question)
    clock.advance(1)
    finished(cache.void(mark_of_prefix("src/auth")))
    assert served(cache, questions) == {"src/api", "docs/src/auth"}


def test_what_is_asked_after_it_was_made_void_is_kept_again(cache: Cache, clock: StoppedClock) -> None:
    fill(cache, AUTH)
    clock.advance(1)
    finished(cache.void(mark_of_prefix("a")))
    clock.advance(1)
    assert fill(cache, AUTH, "new")
    assert value(look(cache, AUTH)) == "new"


def test_a_thousand_marks_cost_a_clear_but_never_a_void_answer(cache: Cache, clock: StoppedClock) -> None:
    fill(cache, AUTH)
    clock.advance(1)
    finished(cache.void(mark_of_tag("first")))
    for number in range(200):
        finished(cache.void(mark_of_tag(str(number))))
    clock.advance(1)
    assert look(cache, AUTH).verdict is Verdict.FILL


# Counting


def test_everything_is_counted_once(cache: Cache, clock: StoppedClock) -> None:
    lease = look(cache, AUTH).lease  # a miss
    look(cache, AUTH)  # a miss that waits
    look(cache, AUTH, waiting=True)
    keep(cache, AUTH, "answer", lease)
    look(cache, AUTH, waiting=True)
    look(cache, AUTH)  # a hit
    look(cache, AUTH)  # another
    clock.advance(TTL + 1)
    finished(cache.give_up(AUTH, look(cache, AUTH).lease, failed=True))  # stale
    finished(cache.drop(AUTH))
    stats = finished(cache.stats())
    assert (stats.hits, stats.misses, stats.waits, stats.stale) == (2, 2, 1, 1)
    assert (stats.fills, stats.failures, stats.dropped) == (1, 1, 1)
    assert stats.hit_rate == pytest.approx(3 / 5)


def test_a_refusal_is_kept_as_one(cache: Cache, clock: StoppedClock) -> None:
    refusal = Kept(b'{"message":"no"}', 0.0, RULES.refusal_life, refusal=True)
    finished(cache.keep(AUTH, refusal, look(cache, AUTH).lease))
    found = look(cache, AUTH)
    assert found.kept
    assert (found.verdict, found.kept.refusal) == (Verdict.SERVE, True)
    clock.advance(RULES.negative_ttl + 1 / 64)
    assert look(cache, AUTH).kept is None, "a refusal is never served past its time"


def test_two_caches_of_one_name_are_one(shared: SharedRedis) -> None:
    here, there = (RedisCache(shared, "test", rules=RULES) for _ in range(2))
    fill(here, AUTH)
    assert value(look(there, AUTH)) == "answer"
    assert len(there) == 1
