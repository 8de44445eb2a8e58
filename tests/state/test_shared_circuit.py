"""What only the shared circuit has: several processes, round trips, push, and a Redis that is not always there.

Each store here is a process of its own, with its own snapshot; the clocks are the test's, the Redis is real.
"""

import itertools
import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
import redis

from bridge_tasks import events
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.resilience.circuit_breaker import CircuitBreaker
from bridge_tasks.resilience.policy.breaker import (
    CircuitBreakerConfig,
    CircuitState,
    Manual,
    Order,
    Outcome,
    Permit,
    Rejection,
)
from bridge_tasks.resilience.state.circuit_script import key
from bridge_tasks.resilience.state.push import CircuitListener
from bridge_tasks.resilience.state.put_by import BATCH
from bridge_tasks.resilience.state.redis_circuit import FRESH_SECONDS, RedisCircuitStore
from bridge_tasks.resilience.state.shared_redis import FIRST_PAUSE, SharedRedis
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.circuits import circuit_store, eventually, quick
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
CONFIG = CircuitBreakerConfig(
    failure_threshold=3, recovery_timeout=60, half_open_max_calls=2, success_threshold=2, minimum_throughput=1
)
LEASE = 31.0
_names = itertools.count()

Process = Callable[..., RedisCircuitStore]


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[PrivateRedis]:
    """A Redis to be treated badly."""
    with PrivateRedis(append_only=True) as server:
        yield server


@pytest.fixture
def client(server: PrivateRedis) -> Iterator[redis.Redis]:
    with quick(server.url) as client:
        yield client


@pytest.fixture
def process(client: redis.Redis, clock: StoppedClock) -> Process:
    """Start another process on the circuit of this test."""
    name = f"shared-{next(_names)}"

    def start(**options: Any) -> RedisCircuitStore:
        return circuit_store(client, name, **{"config": CONFIG, "clock": clock, **options})

    return start


def admit(store: RedisCircuitStore) -> Permit | Rejection:
    return finished(store.admit(LEASE))[0]


def call(store: RedisCircuitStore, outcome: Outcome, times: int = 1) -> None:
    for _ in range(times):
        decision = admit(store)
        assert isinstance(decision, Permit), decision
        finished(store.record(decision, outcome))


def fail_together(*stores: RedisCircuitStore) -> None:
    """Open the circuit by failures of all, in turn."""
    for number in range(CONFIG.failure_threshold):
        call(stores[number % len(stores)], Outcome.FAILURE)


def refused(store: RedisCircuitStore) -> bool:
    return isinstance(admit(store), Rejection)


def commands(client: redis.Redis) -> int:
    stats = client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("evalsha", "eval"))


# Sharing


def test_failures_of_all_processes_count_together(process: Process) -> None:
    one, two = process(), process()
    call(one, Outcome.FAILURE)
    call(two, Outcome.FAILURE)
    call(one, Outcome.FAILURE)
    assert one.view().state is OPEN


def test_others_notice_a_transition_within_a_second_without_any_push(
    process: Process, clock: StoppedClock, facts: list[events.Event]
) -> None:
    one, two, idle = process(), process(), process()
    call(idle, Outcome.SUCCESS)
    fail_together(one, two)
    assert idle.view().state is CLOSED
    clock.advance(FRESH_SECONDS)
    assert refused(idle)
    follows = [fact for fact in facts if isinstance(fact, events.CircuitFollowed)]
    assert (follows[-1].old, follows[-1].new) == ("closed", "open")


def test_only_who_made_a_transition_tells_it(
    process: Process, clock: StoppedClock, facts: list[events.Event]
) -> None:
    breakers = [CircuitBreaker("fleet", CONFIG, store=process(), clock=clock) for _ in range(8)]
    permits = [finished(breaker.admit()) for breaker in breakers]
    for breaker, permit in zip(breakers, permits, strict=True):
        finished(breaker.settle(permit, Outcome.FAILURE, 0.1))
    changes = [fact for fact in facts if isinstance(fact, events.CircuitChanged)]
    assert [(change.old, change.new) for change in changes] == [("closed", "open")]


def test_probes_are_limited_over_all_processes(process: Process, clock: StoppedClock) -> None:
    stores = [process() for _ in range(6)]
    fail_together(*stores)
    clock.advance(60)
    assert sum(not refused(store) for store in stores) == CONFIG.half_open_max_calls


def test_a_late_success_of_the_round_before_does_not_close_a_reopened_circuit(
    process: Process, clock: StoppedClock
) -> None:
    one, two = process(), process()
    fail_together(one, two)
    clock.advance(60)
    slow, quick_one = admit(one), admit(two)
    assert isinstance(slow, Permit)
    assert isinstance(quick_one, Permit)
    finished(two.record(quick_one, Outcome.FAILURE))
    finished(one.record(slow, Outcome.SUCCESS))
    assert one.view().state is OPEN
    assert one.view().reopenings == 1


def test_what_people_order_in_one_process_holds_in_all(process: Process, clock: StoppedClock) -> None:
    one, two = process(), process()
    finished(one.order(Order.HOLD))
    clock.advance(10_000)
    assert refused(two)
    assert two.view().manual is Manual.HELD
    finished(two.order(Order.RESET))
    clock.advance(FRESH_SECONDS)
    assert not refused(one)


# Poison


def test_a_process_that_alone_fails_steps_aside_and_the_fleet_goes_on(
    process: Process, clock: StoppedClock, facts: list[events.Event]
) -> None:
    # Given 31 healthy processes and one of which every call fails
    healthy = [process() for _ in range(31)]
    poisoned = process()
    for store in healthy:
        call(store, Outcome.SUCCESS)
    # When everybody works for five minutes
    sent = 0
    for _ in range(3000):
        clock.advance(0.1)
        decision = admit(poisoned)
        if isinstance(decision, Permit):
            sent += 1
            finished(poisoned.record(decision, Outcome.FAILURE))
        for store in healthy[::5]:
            call(store, Outcome.SUCCESS)
    # Then the circuit stayed closed, and the poisoned one tried only now and then
    assert healthy[0].view().state is CLOSED
    assert not [fact for fact in facts if isinstance(fact, events.CircuitChanged)]
    assert sent <= CONFIG.failure_threshold + 300 / CONFIG.recovery_timeout + 1
    assert len([fact for fact in facts if isinstance(fact, events.ProcessSteppedAside)]) == 1


def test_a_process_that_stepped_aside_comes_back_with_its_first_success(
    process: Process, clock: StoppedClock
) -> None:
    healthy, ill = process(), process()
    call(healthy, Outcome.SUCCESS)
    call(ill, Outcome.FAILURE, times=3)
    assert refused(ill)
    clock.advance(CONFIG.recovery_timeout)
    call(healthy, Outcome.SUCCESS)
    call(ill, Outcome.SUCCESS)
    assert [refused(ill) for _ in range(5)] == [False] * 5


# Round trips


def test_a_closed_circuit_costs_a_round_trip_for_32_successes(process: Process, client: redis.Redis) -> None:
    store = process()
    call(store, Outcome.SUCCESS)
    before = commands(client)
    call(store, Outcome.SUCCESS, times=10 * BATCH)
    assert commands(client) - before == 10


def test_a_failure_costs_one_and_a_refusal_none(
    process: Process, client: redis.Redis, clock: StoppedClock
) -> None:
    store = process()
    call(store, Outcome.SUCCESS)
    before = commands(client)
    call(store, Outcome.FAILURE, times=3)
    assert commands(client) - before == 3
    for _ in range(1000):
        clock.advance(0.0005)
        assert refused(store)
    assert commands(client) - before == 3


def test_while_all_probes_are_out_redis_is_asked_ten_times_a_second_at_most(
    process: Process, client: redis.Redis, clock: StoppedClock
) -> None:
    store = process()
    call(store, Outcome.FAILURE, times=3)
    clock.advance(60)
    assert not refused(store)
    assert not refused(store)
    before = commands(client)
    for _ in range(1000):
        clock.advance(0.001)
        assert refused(store)
    assert commands(client) - before <= 11


def test_successes_that_wait_are_told_with_the_next_failure_or_after_a_second(
    process: Process, clock: StoppedClock
) -> None:
    one, two = process(), process()
    call(one, Outcome.SUCCESS, times=3)
    call(one, Outcome.FAILURE)
    call(two, Outcome.FAILURE)
    assert (two.view().successes, two.view().failures) == (3, 2)
    call(one, Outcome.SUCCESS)
    assert not one.overdue
    clock.advance(FRESH_SECONDS + 0.1)
    assert one.overdue
    finished(one.flush())
    assert not one.overdue


def test_the_circuit_is_one_small_key_that_expires_unless_people_hold_it(
    process: Process, client: redis.Redis
) -> None:
    store = process()
    call(store, Outcome.SUCCESS, times=100)
    assert (client.memory_usage(key(store.name)) or 0) < 1024
    assert 0 < client.pttl(key(store.name)) <= 600_000
    finished(store.order(Order.HOLD))
    assert client.pttl(key(store.name)) == -1


@pytest.mark.parametrize("name", ["", "a}b", "a{b", "a b", "a\nb"])
def test_a_name_that_cannot_be_part_of_a_key_is_refused(
    name: str, client: redis.Redis, clock: StoppedClock
) -> None:
    with pytest.raises(ValueError, match="name"):
        circuit_store(client, name, CONFIG, clock)


# Push


def test_a_transition_is_pushed_to_every_process(server: PrivateRedis, process: Process) -> None:
    listener = CircuitListener(lambda: quick(server.url))
    one, two, idle = process(), process(), process(listener=listener)
    call(idle, Outcome.SUCCESS)
    assert listener.listening.wait(5)
    fail_together(one, two)
    assert eventually(lambda: idle.view().state is OPEN)
    finished(two.order(Order.RESET))
    assert eventually(lambda: idle.view().state is CLOSED)
    listener.stop()


def test_a_listener_that_loses_its_connection_comes_back_and_doubts_what_it_knew(
    server: PrivateRedis, process: Process, client: redis.Redis
) -> None:
    listener = CircuitListener(lambda: quick(server.url))
    store = process(listener=listener)
    call(store, Outcome.SUCCESS)
    assert listener.listening.wait(5)
    client.client_kill_filter(_type="pubsub")
    assert eventually(lambda: not listener.listening.is_set())
    assert eventually(listener.listening.is_set)
    listener.stop()


def test_a_push_that_is_older_than_what_is_known_changes_nothing(process: Process) -> None:
    store = process()
    call(store, Outcome.FAILURE, times=3)
    store.learn([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert store.view().state is OPEN


def _listeners() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "bridge-circuits"}


def test_a_child_listens_by_a_thread_of_its_own(server: PrivateRedis, process: Process) -> None:
    listener = CircuitListener(lambda: quick(server.url))
    store = process(listener=listener)
    call(store, Outcome.SUCCESS)
    before = _listeners()
    assert before
    listener._pid = -1  # as in a child, where no thread of the parent's runs
    listener.follow(store)
    assert listener._pid == os.getpid()
    assert _listeners() - before, "those of other tests may end meanwhile"
    listener.stop()


# A Redis that is not always there


def real(server: PrivateRedis, **options: Any) -> RedisCircuitStore:
    """A process by the real clock, as quick to give up on Redis as a worker is."""
    client = quick(server.url, 0.1)
    config = replace(CONFIG, recovery_timeout=30.0)
    return circuit_store(client, "real", config, time.monotonic, server_clock=lambda: 0.0, **options)


def trouble(kind: str, server: PrivateRedis) -> None:
    with quick(server.url) as client:
        match kind:
            case "stopped":
                server.pause()
            case "killed":
                server.kill()
            case "read-only":
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
            case "full":
                client.config_set("maxmemory", "1")


def recovery(kind: str, server: PrivateRedis) -> None:
    if kind == "stopped":
        server.resume()
    elif kind == "killed":
        server.start()
    with quick(server.url) as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
        client.config_set("maxmemory", "0")


@pytest.mark.parametrize("kind", ["stopped", "killed", "read-only", "full"])
def test_without_redis_calls_go_on_an_open_circuit_is_remembered_and_it_costs_nothing(
    kind: str, own_server: PrivateRedis, facts: list[events.Event]
) -> None:
    # Given a process that knows the circuit to be open, and one that found it closed, on another circuit
    knowing, other = real(own_server), real(own_server)
    other.name = "other"
    call(other, Outcome.SUCCESS)
    call(knowing, Outcome.FAILURE, times=3)
    # When Redis goes
    trouble(kind, own_server)
    # Then the open circuit stays open, also when its snapshot is old
    knowing.doubt()
    assert refused(knowing)
    # And the closed one lets calls through, opens by the same rules, and nobody asks Redis but to look for it
    other.doubt()
    call(other, Outcome.SUCCESS)
    with looks(other) as looked:
        call(other, Outcome.SUCCESS, times=200)
    assert looked() <= 1, "now and then somebody looks whether it is back"
    call(other, Outcome.FAILURE, times=3)
    assert refused(other)
    assert [fact for fact in facts if isinstance(fact, events.StoreLost)]
    # And when it is back, what all processes share counts again
    recovery(kind, own_server)
    fresh = real(own_server)
    fresh.name = "other"
    assert eventually(lambda: not refused(fresh))
    assert eventually(lambda: not refused(other))
    assert refused(knowing)


@pytest.mark.parametrize("restarted", [False, True], ids=["flushed", "restarted-empty"])
def test_an_open_circuit_outlives_a_redis_that_forgot_everything(restarted: bool) -> None:
    with PrivateRedis() as server:
        knowing = real(server)
        call(knowing, Outcome.FAILURE, times=3)
        if restarted:
            server.kill()
            server.start()
        with quick(server.url) as client:
            client.flushall()
            assert eventually(lambda: asks_anew(knowing) and client.exists(key("real")))
        assert refused(real(server)), "who never knew learns it from the one who did"


def asks_anew(store: RedisCircuitStore) -> bool:
    """Have an open circuit's process ask Redis, and be refused."""
    store.doubt()
    return refused(store)


def test_a_redis_that_takes_200_ms_is_as_good_as_none(own_server: PrivateRedis) -> None:
    with slowed(own_server, 0.2) as url, quick(url, 0.1) as client:
        store = RedisCircuitStore("slow", CONFIG, SharedRedis(BlockingRedis(client)))
        call(store, Outcome.SUCCESS)
        with looks(store) as looked:
            call(store, Outcome.SUCCESS, times=300)
        assert looked() <= 1
        call(store, Outcome.FAILURE, times=3)
        assert refused(store)


@contextmanager
def looks(store: RedisCircuitStore) -> Iterator[Callable[[], float]]:
    """Count what a block puts on Redis: gives the commands for each pause that there was time for."""
    client, asked = store._shared._client, []
    began = time.monotonic()

    class Counting:
        async def execute_command(self, *arguments: Any) -> Any:
            asked.append(arguments[0])
            return await client.execute_command(*arguments)

    store._shared._client = Counting()
    yield lambda: len(asked) / (1 + (time.monotonic() - began) / (0.75 * FIRST_PAUSE))
    store._shared._client = client


@contextmanager
def slowed(server: PrivateRedis, seconds: float) -> Iterator[str]:
    """Put something in front of Redis that holds back each answer."""

    class Slow(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", server.port)) as upstream:
                while asked := self.request.recv(65536):
                    upstream.sendall(asked)
                    answer = upstream.recv(65536)
                    time.sleep(seconds)
                    with suppress(OSError):
                        self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as proxy:
        proxy.daemon_threads = True
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"redis://127.0.0.1:{proxy.server_address[1]}/0"
        proxy.shutdown()
        thread.join()


def test_forgotten_scripts_are_loaded_again(own_server: PrivateRedis, facts: list[events.Event]) -> None:
    store = real(own_server)
    call(store, Outcome.SUCCESS)
    with quick(own_server.url) as client:
        client.script_flush()
    call(store, Outcome.FAILURE, times=3)
    assert refused(store)
    assert not [fact for fact in facts if isinstance(fact, events.StoreLost)]


def test_rubbish_in_the_key_is_no_state(process: Process, client: redis.Redis, facts: list[events.Event]) -> None:
    store = process()
    call(store, Outcome.SUCCESS)
    client.set(key(store.name), b"\xc1 rubbish")
    call(store, Outcome.FAILURE)
    assert store.view().state is CLOSED
    assert not [fact for fact in facts if isinstance(fact, events.StoreLost)]


# Clocks


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_process_whose_clock_is_an_hour_off_changes_nothing(
    hours: int, process: Process, clock: StoppedClock
) -> None:
    wrong = StoppedClock(clock.now + 3600 * hours)
    right, off = process(), process(clock=wrong, server_clock=clock)
    call(off, Outcome.SUCCESS)
    for passing in (clock, wrong):
        passing.advance(0.1)
    fail_together(right, off)
    clock.advance(FRESH_SECONDS)
    wrong.advance(FRESH_SECONDS)
    decision = admit(off)
    assert isinstance(decision, Rejection)
    assert decision.retry_after == pytest.approx(59.0)
    clock.advance(59)
    wrong.advance(59)
    assert not refused(off)


@pytest.mark.parametrize("step", [-3600.0, -60.0, 60.0, 3600.0])
def test_a_stepping_server_clock_never_keeps_a_circuit_open_for_longer(
    step: float, process: Process, clock: StoppedClock
) -> None:
    server_clock = StoppedClock(1_700_000_000.0)
    one, two = process(server_clock=server_clock), process(server_clock=server_clock)
    fail_together(one, two)
    server_clock.advance(step)
    for passing in (clock, server_clock):
        passing.advance(CONFIG.recovery_timeout)
    assert not refused(one)


@pytest.mark.parametrize("step", [-3600.0, -60.0, 60.0, 3600.0])
def test_a_stepping_server_clock_never_keeps_a_lost_probe_s_place_for_good(
    step: float, process: Process, clock: StoppedClock
) -> None:
    # Given all places taken by probes that never come back
    server_clock = StoppedClock(1_700_000_000.0)
    one, two = process(server_clock=server_clock), process(server_clock=server_clock)
    fail_together(one, two)
    for passing in (clock, server_clock):
        passing.advance(CONFIG.recovery_timeout)
    assert [refused(one), refused(two)] == [False, False]
    # When the server's clock steps, then a place is free in the time that two lost probes cost anyway
    server_clock.advance(step)
    passed = 0
    while refused(one):
        passed += 1
        for passing in (clock, server_clock):
            passing.advance(1)
    assert passed <= LEASE + CONFIG.recovery_timeout + 1
