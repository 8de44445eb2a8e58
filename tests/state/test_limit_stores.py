"""What every `LimitStore` promises, in this process or in Redis; and that the two agree to the last digit."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
import redis
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks import events
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.fleet import FULL_PACE, LONGEST_HOLD, SECOND, News, Pulse
from bridge_tasks.resilience.policy.limits import Grant, Rate, rate
from bridge_tasks.resilience.state.limits_port import LimitStore
from bridge_tasks.resilience.state.local_limits import LocalLimitStore
from bridge_tasks.resilience.state.redis_limits import RedisLimitStore
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock

CONFIG = BudgetConfig(ratio=0.1, reserve=3)
RATE = Rate(interval=SECOND, burst=4)
THREADS = 16


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture(scope="module")
def client(server: PrivateRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0), socket_timeout=0.2) as client:
        yield client


def in_redis(
    client: redis.Redis, server_clock: Callable[[], float] | None, service: str | None = None
) -> RedisLimitStore:
    """Make a store of a service of its own, which falls back to a clock of its own."""
    return RedisLimitStore(
        service or uuid4().hex,
        CONFIG,
        SharedRedis(BlockingRedis(client)),
        local=LocalLimitStore(CONFIG, StoppedClock()),
        server_clock=server_clock,
    )


@pytest.fixture(params=["local", "redis"])
def store(request: pytest.FixtureRequest, clock: StoppedClock, client: redis.Redis) -> LimitStore:
    return LocalLimitStore(CONFIG, clock) if request.param == "local" else in_redis(client, clock)


def pulse(store: LimitStore, **news: Any) -> Pulse:
    return finished(store.pulse(News(**news)))


def take(store: LimitStore, want: int = 1, patience: float = 0.0, group: str = "hash") -> Grant:
    return finished(store.take(group, RATE, FULL_PACE, want, round(patience * SECOND)))


def test_a_service_of_which_nothing_is_known_is_well(store: LimitStore) -> None:
    assert pulse(store) == Pulse(granted=False, hold=0, pace=FULL_PACE)


def test_retries_are_granted_up_to_the_fleet_s_share(store: LimitStore, clock: StoppedClock) -> None:
    pulse(store, tries=10)
    granted = [pulse(store, wants_retry=True).granted for _ in range(6)]
    assert granted.count(True) == 3, "a tenth of ten calls less the retries is none, the reserve is three"
    clock.advance(10)
    assert pulse(store, wants_retry=True).granted


def test_a_hold_is_heard_until_it_is_over_and_is_cut_to_a_minute(store: LimitStore, clock: StoppedClock) -> None:
    assert pulse(store, hold=300 * SECOND).hold == LONGEST_HOLD
    clock.advance(59)
    assert pulse(store).hold == SECOND
    clock.advance(1)
    assert pulse(store).hold == 0


def test_a_complaint_slows_everybody_and_the_pace_comes_back(store: LimitStore, clock: StoppedClock) -> None:
    assert pulse(store, throttled=True).pace == 700
    clock.advance(2)
    assert pulse(store).pace == 800


def test_a_burst_then_a_place_in_line_then_a_refusal_that_says_when(store: LimitStore) -> None:
    assert take(store, want=3) == Grant(3)
    assert take(store, want=3) == Grant(1)
    assert take(store, patience=1.5) == Grant(1, SECOND)
    assert take(store, patience=1.5) == Grant(0, 2 * SECOND)


def test_groups_do_not_share_their_tokens(store: LimitStore) -> None:
    assert take(store, want=9, group="hash") == Grant(4)
    assert take(store, want=9, group="batch") == Grant(4)


def test_a_slower_pace_lets_fewer_through(store: LimitStore, clock: StoppedClock) -> None:
    assert take(store, want=9) == Grant(4)
    clock.advance(8)
    assert finished(store.take("hash", RATE, FULL_PACE // 2, 9, 0)) == Grant(4)
    clock.advance(4)
    assert finished(store.take("hash", RATE, FULL_PACE // 2, 9, 0)) == Grant(2)


def test_of_many_threads_at_once_as_many_get_a_token_as_there_are(store: LimitStore) -> None:
    ready = threading.Barrier(THREADS)

    def one(_: int) -> Grant:
        ready.wait()
        return take(store)

    with ThreadPoolExecutor(THREADS) as pool:
        grants = list(pool.map(one, range(THREADS)))
    assert sum(grant.tokens for grant in grants) == RATE.burst


NEWS = st.builds(
    News,
    tries=st.integers(0, 40),
    wants_retry=st.booleans(),
    hold=st.sampled_from([0, 0, 0, 1, 1_500_000, 90 * SECOND]),
    throttled=st.booleans(),
)
STEPS = st.integers(0, 3 * SECOND) | st.sampled_from([0, SECOND, 10 * SECOND, -SECOND, -3600 * SECOND])


class Microseconds:
    """A clock that shows whole microseconds as seconds, near today's time."""

    def __init__(self) -> None:
        self.now = 1_790_000_000 * SECOND

    def __call__(self) -> float:
        return self.now / SECOND


@settings(max_examples=60)
@given(steps=st.lists(st.tuples(STEPS, NEWS), max_size=40))
def test_the_script_tells_what_the_policy_tells(client: redis.Redis, steps: list[tuple[int, News]]) -> None:
    clock = Microseconds()
    here, there = LocalLimitStore(CONFIG, clock), in_redis(client, clock)
    for step, news in steps:
        clock.now += step
        assert finished(there.pulse(news)) == finished(here.pulse(news))


@settings(max_examples=60)
@given(
    wanted=st.builds(rate, st.integers(1, 5000)),
    steps=st.lists(
        st.tuples(STEPS, st.integers(1, 20), st.integers(0, SECOND), st.integers(50, FULL_PACE)), max_size=40
    ),
)
def test_the_script_takes_what_the_policy_takes(
    client: redis.Redis, wanted: Rate, steps: list[tuple[int, int, int, int]]
) -> None:
    clock = Microseconds()
    here, there = LocalLimitStore(CONFIG, clock), in_redis(client, clock)
    for step, want, patience, pace in steps:
        clock.now += step
        asked = ("hash", wanted, pace, want, patience)
        assert finished(there.take(*asked)) == finished(here.take(*asked))


def test_processes_share_one_service_s_limits_by_the_server_s_clock(client: redis.Redis) -> None:
    # Given two processes that have no clock in common but the server's
    service = uuid4().hex
    one, other = in_redis(client, None, service), in_redis(client, None, service)
    # When one is told to wait, meets a 429 and takes all the tokens
    pulse(one, hold=30 * SECOND, throttled=True)
    taken = finished(one.take("hash", Rate(60 * SECOND, 4), FULL_PACE, 9, 0))
    # Then the other knows
    known = pulse(other)
    assert 29 * SECOND < known.hold <= 30 * SECOND
    assert 700 <= known.pace < 800
    assert taken == Grant(4)
    assert finished(other.take("hash", Rate(60 * SECOND, 4), FULL_PACE, 9, 0)).tokens == 0


def test_what_is_kept_in_redis_is_small_and_does_not_stay(client: redis.Redis) -> None:
    clock, service = StoppedClock(), uuid4().hex
    store = in_redis(client, clock, service)
    for _ in range(60):
        clock.advance(1)
        pulse(store, tries=3, wants_retry=True, hold=SECOND, throttled=True)
        take(store)
    keys = client.keys(f"*{service}*")
    assert sorted(keys) == [
        f"bridge:v1:limits:{{{service}}}".encode(),
        f"bridge:v1:rate:{{{service}/hash}}".encode(),
    ]
    assert client.hlen(f"bridge:v1:limits:{{{service}}}") <= 2 * 10 + 3
    assert all(0 < client.ttl(key) <= 120 for key in keys)


def test_a_redis_that_forgets_everything_even_the_scripts_starts_afresh(client: redis.Redis) -> None:
    store = in_redis(client, None)
    pulse(store, hold=30 * SECOND)
    take(store, want=4)
    client.flushall()
    client.script_flush()
    assert pulse(store) == Pulse()
    assert take(store) == Grant(1)


def test_garbage_in_redis_harms_nobody(client: redis.Redis, clock: StoppedClock) -> None:
    service = uuid4().hex
    store = in_redis(client, clock, service)
    client.hset(f"bridge:v1:limits:{{{service}}}", mapping={"hold": "x", "t:1": "y", "t:": "1", "hä": "1"})
    client.set(f"bridge:v1:rate:{{{service}/hash}}", "garbage")
    assert pulse(store).hold == 0
    assert take(store) == Grant(1)


def test_without_redis_the_process_goes_on_by_itself_and_with_it_the_fleet_s_word_counts_again(
    server: PrivateRedis, client: redis.Redis, facts: list[events.Event]
) -> None:
    clock = StoppedClock()
    shared = SharedRedis(BlockingRedis(client), clock=clock, chance=lambda: 0.5)
    store = RedisLimitStore(uuid4().hex, CONFIG, shared, local=LocalLimitStore(CONFIG, clock))
    # Given that the fleet has used the tokens up, and is held
    pulse(store, hold=60 * SECOND)
    assert take(store, want=4) == Grant(4)
    server.pause()
    try:
        # When Redis does not answer, then the local store does, with tokens of its own
        assert pulse(store, wants_retry=True) == Pulse(granted=True)
        assert take(store, want=9) == Grant(4)
        assert take(store).tokens == 0
    finally:
        server.resume()
    # When Redis is back, then what the fleet knows counts
    clock.advance(1)
    assert pulse(store).hold > 0
    assert [type(fact).__name__ for fact in facts] == ["StoreLost", "StoreRegained"]


async def test_an_asyncio_client_does_as_well(server: PrivateRedis) -> None:
    async with redis.asyncio.Redis.from_url(server.url) as client:
        store = RedisLimitStore(
            uuid4().hex, CONFIG, SharedRedis(client), local=LocalLimitStore(CONFIG, StoppedClock())
        )
        assert (await store.pulse(News(hold=30 * SECOND))).hold == 30 * SECOND
        assert await store.take("hash", RATE, FULL_PACE, 2, 0) == Grant(2)


@pytest.mark.parametrize("trouble", ["read-only", "killed"])
def test_no_error_of_redis_comes_through(trouble: str) -> None:
    with PrivateRedis() as server, redis.Redis.from_url(server.url, retry=Retry(NoBackoff(), 0)) as client:
        store = in_redis(client, None)
        if trouble == "killed":
            server.kill()
        else:
            client.replicaof("127.0.0.1", "1")
        assert pulse(store, tries=1, wants_retry=True) == Pulse(granted=True)
        assert take(store) == Grant(1)
