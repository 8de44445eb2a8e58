"""The cache in memory and the one in Redis answer alike, whatever happens in whatever order."""

from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge_tasks.cache import Cache, Found, LocalCache, RedisCache
from bridge_tasks.resilience.policy.caching import EVERYTHING, CacheRules, mark_of_prefix, mark_of_tag
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from tests.cache.questions import about, keep, look, value
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock

RULES = CacheRules(
    stale_while_revalidate=2.0,
    stale_if_error=6.0,
    early_refresh=1.0,
    lease=1.5,
    pause_after_failure=1.0,
    near_ttl=0.0,
)
QUESTIONS = (about("a", "x"), about("ab", "y"), about("b", "x", "y"), about("c"))
MARKS = (EVERYTHING, mark_of_tag("x"), mark_of_tag("y"), mark_of_prefix("a"), mark_of_prefix("ab"))

question = st.integers(0, len(QUESTIONS) - 1)
ticks = st.integers(0, 160)
step = st.one_of(
    st.tuples(st.just("look"), question, st.booleans()),
    st.tuples(st.just("keep"), question, st.integers(0, 64)),
    st.tuples(st.just("give_up"), question, st.booleans()),
    st.tuples(st.just("void"), st.sampled_from(MARKS)),
    st.tuples(st.just("wait"), ticks),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(steps=st.lists(step, min_size=10, max_size=80), chance=st.sampled_from([0.0, 0.9]))
def test_the_two_answer_alike(
    steps: list[tuple[Any, ...]], chance: float, shared: SharedRedis, store: redis.Redis
) -> None:
    store.flushall()
    clock = StoppedClock()  # moved by powers of two of a second: no rounding anywhere
    local = LocalCache(3, 0.4, rules=RULES, clock=clock, chance=lambda: chance)
    remote = RedisCache(
        shared,
        "twin",
        3,
        0.4,
        rules=RULES,
        clock=clock,
        chance=lambda: chance,
        server_time=lambda: round(clock.now * 1_000_000),
    )
    twins: tuple[Cache, Cache] = (local, remote)
    leases: dict[tuple[int, int], str | None] = {}
    for number, (what, *arguments) in enumerate(steps):
        clock.advance(1 / 64)
        if what == "wait":
            clock.advance(arguments[0] / 64)
        elif what == "void":
            for cache in twins:
                finished(cache.void(arguments[0]))
        else:
            which, argument = arguments
            asked = QUESTIONS[which]
            seen = []
            for twin, cache in enumerate(twins):
                if what == "look":
                    found = look(cache, asked, waiting=argument)
                    if found.lease:
                        leases[twin, which] = found.lease
                    seen.append(_told(found))
                elif what == "keep":
                    lease = leases.pop((twin, which), None)
                    done = keep(cache, asked, number, lease, took=argument / 64, ttl=2.0, rules=RULES)
                    seen.append((done,))
                else:
                    finished(cache.give_up(asked, leases.pop((twin, which), None), failed=argument))
            assert seen[:1] == seen[1:], (number, what, arguments)
    assert _counted(local) == _counted(remote)


def _told(found: Found) -> tuple[Any, ...]:
    kept = found.kept
    return (found.verdict, found.age, value(found), kept and (kept.age, kept.life), found.lease is None)


def _counted(cache: Cache) -> dict[str, int]:
    stats = finished(cache.stats())
    return {
        name: getattr(stats, name) for name in ("hits", "stale", "misses", "waits", "fills", "late", "failures")
    }


@pytest.mark.parametrize("command", ["look"])
def test_a_look_is_one_round_trip(command: str, shared: SharedRedis, store: redis.Redis) -> None:
    cache = RedisCache(shared, "trips", rules=RULES)
    keep(cache, QUESTIONS[0], command, look(cache, QUESTIONS[0]).lease)
    before = store.info("commandstats")["cmdstat_evalsha"]["calls"]
    for _ in range(10):
        look(cache, QUESTIONS[0])
    assert store.info("commandstats")["cmdstat_evalsha"]["calls"] - before == 10
