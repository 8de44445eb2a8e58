"""A circuit watched from outside, in a real Redis: what is seen, what is pushed, and what an outage changes."""

import threading
from collections.abc import Iterator

import pytest
import redis
from pydantic import SecretStr

from bridge_tasks.resilience.policy.breaker import Circuit, CircuitState, Manual, Order
from bridge_tasks.resilience.state import circuit_script
from bridge_tasks.resilience.state.port import CircuitStore
from bridge_tasks.resilience.state.redis_circuit import RedisCircuitStore
from bridge_tasks.runtime import Runtime
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.settings import Settings
from bridge_tasks.worker.circuit_watch import CircuitWatch
from tests.workers import eventually


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as started:
        yield started


@pytest.fixture
def runtime(server: PrivateRedis) -> Iterator[Runtime]:
    opened = Runtime(Settings(redis_url=SecretStr(server.url)))
    yield opened
    opened.close()


@pytest.fixture
def elsewhere(runtime: Runtime) -> CircuitStore:
    """The circuit as another process has it."""
    breaker = runtime.metadata.circuit_breaker
    return RedisCircuitStore(breaker.name, breaker.config, runtime.shared, reporter=lambda: "another")


def ordered(runtime: Runtime, store: CircuitStore, order: Order) -> None:
    runtime.run(store.order(order))


def silent() -> None:
    pass


def test_a_look_sees_what_another_process_did_and_leaves_no_trace(
    runtime: Runtime, elsewhere: CircuitStore, server: PrivateRedis
) -> None:
    watch = CircuitWatch("metadata", runtime, silent)
    watch.look()
    assert watch.circuit.state is CircuitState.CLOSED
    with redis.Redis.from_url(server.url) as client:
        assert client.exists(circuit_script.key(watch.name)) == 0

    ordered(runtime, elsewhere, Order.HOLD)
    watch.look()
    assert (watch.circuit.state, watch.circuit.manual) == (CircuitState.OPEN, Manual.HELD)


def test_a_change_is_pushed_to_who_follows(runtime: Runtime, elsewhere: CircuitStore) -> None:
    heard = threading.Event()
    watch = CircuitWatch("metadata", runtime, heard.set)
    watch.follow()
    assert runtime.circuit_news.listening.wait(10)

    ordered(runtime, elsewhere, Order.OPEN)

    assert heard.wait(10)
    assert watch.circuit.state is CircuitState.OPEN


def test_what_was_known_stays_known_while_redis_is_away(
    runtime: Runtime, elsewhere: CircuitStore, server: PrivateRedis
) -> None:
    watch = CircuitWatch("metadata", runtime, silent)
    ordered(runtime, elsewhere, Order.HOLD)
    watch.look()
    known = watch.circuit
    server.kill()

    watch.look()

    assert watch.circuit == known


def test_a_redis_that_came_back_empty_is_believed(
    runtime: Runtime, elsewhere: CircuitStore, server: PrivateRedis
) -> None:
    watch = CircuitWatch("metadata", runtime, silent)
    ordered(runtime, elsewhere, Order.HOLD)
    watch.look()
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()

    watch.look()

    assert watch.circuit.state is CircuitState.CLOSED, "who called and knows better will tell it"


def test_news_that_is_older_than_what_is_known_changes_nothing(runtime: Runtime, elsewhere: CircuitStore) -> None:
    heard = threading.Event()
    watch = CircuitWatch("metadata", runtime, heard.set)
    ordered(runtime, elsewhere, Order.OPEN)
    watch.look()
    known = watch.circuit

    watch.learn([0, 0, known.epoch - 1, *[0] * 11])

    assert watch.circuit == known
    assert not heard.is_set()


def test_each_service_has_its_own_circuit(runtime: Runtime, elsewhere: CircuitStore) -> None:
    other = CircuitWatch("onextree", runtime, silent)
    ordered(runtime, elsewhere, Order.HOLD)
    other.look()

    assert other.circuit.state is CircuitState.CLOSED
    assert other.circuit != Circuit(CircuitState.OPEN)
    assert eventually(lambda: other.name == runtime.onextree.circuit_breaker.name)
