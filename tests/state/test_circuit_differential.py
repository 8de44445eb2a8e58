"""The rules in Lua against the rules in Python: the same trace, the same answers, to the microsecond.

A state machine sends arbitrary histories to a real Redis and to `policy.breaker`; after each step every number of
the script's answer must be what the policy says. The laws of the circuit are checked on the way.
"""

import itertools
import random
from collections.abc import Iterator
from typing import ClassVar

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge_tasks.driver import BlockingRedis
from bridge_tasks.resilience.policy import breaker
from bridge_tasks.resilience.policy.breaker import (
    TRANSITIONS,
    Cause,
    Circuit,
    CircuitBreakerConfig,
    CircuitState,
    Lease,
    News,
    Order,
    Permit,
    Rejection,
    Voices,
    micros,
    ramp_left,
)
from bridge_tasks.resilience.policy.window import SECOND, Window
from bridge_tasks.resilience.state import circuit_script
from bridge_tasks.resilience.state.circuit_script import Asker, Told
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.circuits import quick
from tests.never_suspending import finished

HISTORIES, STEPS = 100, 50
"""Of the search that shrinks what it finds. The long walk has the numbers."""

WALK = 3_000
"""Steps for each configuration."""

CONFIGS = (
    CircuitBreakerConfig(failure_threshold=3, recovery_timeout=20, minimum_throughput=4),
    CircuitBreakerConfig(
        failure_threshold=50,
        recovery_timeout=5,
        half_open_max_calls=2,
        success_threshold=3,
        failure_rate_threshold=0.5,
        slow_rate_threshold=0.3,
        max_recovery_timeout=33,
        ramp_seconds=4.5,
    ),
    CircuitBreakerConfig(failure_threshold=99, recovery_timeout=1, slow_rate_threshold=0.3, ramp_seconds=30),
    CircuitBreakerConfig(
        failure_threshold=2, minimum_throughput=0, recovery_timeout=0, half_open_max_calls=1, success_threshold=1
    ),
)
LEASE = 7.0
REPORTERS = ("one", "two", "three")
BEGIN = 1_763_900_000 * SECOND

_names = itertools.count()


def set_back(circuit: Circuit, back: int) -> Circuit:
    """What the script does when the server's clock was set back by more than a second."""
    return circuit._replace(
        changed_at=circuit.changed_at - back,
        run_began=circuit.run_began - back,
        leases=tuple(Lease(lease.token, lease.expires_at - back) for lease in circuit.leases),
        window=Window(),
        heard=Voices(),
        complaining=Voices(),
    )


class SameTrace(RuleBasedStateMachine):
    """One circuit, twice."""

    client: ClassVar[redis.Redis]
    taken: ClassVar[int] = 0
    seen: ClassVar[set[Cause]] = set()

    @initialize(config=st.sampled_from(CONFIGS))
    def begin(self, config: CircuitBreakerConfig) -> None:
        self.config = config
        self.name = f"circuit-{next(_names)}"
        self.shared = SharedRedis(BlockingRedis(self.client))
        self.now = self.clock = BEGIN
        self.circuit = Circuit(epoch=BEGIN, changed_at=BEGIN)
        self.permits: list[Permit] = []
        self.tokens = itertools.count()
        self.exchange("one", Told(), "", 0.0)

    def exchange(self, reporter: str, told: Told, wish: str | Order, chance: float) -> Permit | Rejection | None:
        """Do it in both places, and compare."""
        before, circuit = self.circuit, self.circuit
        now = self.now
        if now < self.clock:
            if self.clock - now < SECOND:
                now = self.clock
            else:
                before = circuit = set_back(circuit, self.clock - now)
        self.clock = now
        decision: Permit | Rejection | None = None
        if isinstance(wish, Order):
            circuit = breaker.obey(circuit, self.config, wish, now)
        else:
            admitting = wish == circuit_script.ADMIT
            token = "" if admitting else told.token
            news = News(
                told.epoch, told.successes, told.failures, told.slow, now - told.age, token, reporter=reporter
            )
            circuit = breaker.report(circuit, self.config, news, now, chance)
            if admitting:
                circuit, decision = breaker.admit(
                    circuit, self.config, now, token=told.token, lease=micros(LEASE), chance=chance
                )
        numbers = finished(
            circuit_script.ask(
                self.shared,
                Asker(self.name, self.config, reporter),
                told,
                wish,
                lease=LEASE,
                now=0.0,
                chance=chance,
                server_time=self.now,
            )
        )
        assert list(numbers) == self.expected(before, circuit, decision, reporter, now)
        assert circuit.epoch >= before.epoch
        if circuit.state is not before.state:
            assert circuit.epoch > before.epoch
            if not isinstance(wish, Order):
                assert (before.state, circuit.cause, circuit.state) in TRANSITIONS
        self.circuit = circuit
        type(self).taken += 1
        self.seen.add(circuit.cause)
        return decision

    def expected(
        self, before: Circuit, after: Circuit, decision: Permit | Rejection | None, reporter: str, now: int
    ) -> list[int]:
        left = {
            CircuitState.OPEN: max(after.changed_at + after.open_for - now, 0),
            CircuitState.CLOSED: ramp_left(after, self.config, now),
            CircuitState.HALF_OPEN: 0,
        }[after.state]
        states = circuit_script.STATES
        verdict, wait = 0, 0
        if isinstance(decision, Permit):
            verdict = 1
        elif isinstance(decision, Rejection):
            verdict = {CircuitState.OPEN: 2, CircuitState.HALF_OPEN: 3, CircuitState.CLOSED: 4}[after.state]
            exact = decision.retry_after * SECOND
            wait = round(exact) if abs(exact - round(exact)) < 1e-3 else int(exact) + 1
        return [
            states.index(after.state),
            circuit_script.MANUALS.index(after.manual),
            after.epoch,
            circuit_script.CAUSES.index(after.cause),
            left,
            now - after.changed_at,
            after.open_for,
            after.reopenings,
            after.in_flight,
            after.failures,
            after.successes,
            after.total_calls,
            after.consecutive_failures,
            after.consecutive_successes,
            verdict,
            wait,
            -1 if before.state is after.state else states.index(before.state),
            int(after.suspect != "" and after.suspect == reporter),
        ]

    reporters = st.sampled_from(REPORTERS)
    chances = st.floats(0, 1, exclude_max=True)

    @rule(reporter=reporters, chance=chances, put_by=st.integers(0, 40))
    def ask_leave(self, reporter: str, chance: float, put_by: int) -> None:
        told = Told(self.circuit.epoch if put_by else 0, put_by, token=f"token-{next(self.tokens)}")
        decision = self.exchange(reporter, told, circuit_script.ADMIT, chance)
        if isinstance(decision, Permit):
            self.permits.append(decision if self.circuit.leases else Permit(decision.epoch))

    @precondition(lambda self: self.permits)
    @rule(
        reporter=reporters,
        chance=chances,
        which=st.integers(0, 1000),
        good=st.integers(0, 3),
        bad=st.integers(0, 1),
        slow=st.booleans(),
        age=st.integers(0, 3 * SECOND),
    )
    def tell(self, reporter: str, chance: float, which: int, good: int, bad: int, slow: bool, age: int) -> None:
        permit = self.permits.pop(which % len(self.permits))
        if permit.token:  # a probe is one call
            good, age = int(good > 0 and not bad), 0
        told = Told(permit.epoch, good, bad, good if slow else 0, age, permit.token)
        self.exchange(reporter, told, "", chance)

    @rule(reporter=reporters, chance=chances, bad=st.integers(1, 12), good=st.integers(0, 12))
    def a_burst(self, reporter: str, chance: float, bad: int, good: int) -> None:
        self.exchange(reporter, Told(self.circuit.epoch, good, bad), "", chance)

    @rule(
        seconds=st.one_of(
            st.sampled_from([0.0, 1.0, 9.0, 10.0, 100.0, 5.0, 20.0, LEASE]), st.floats(0, 3), st.floats(0, 1e-5)
        )
    )
    def time_passes(self, seconds: float) -> None:
        self.now += micros(seconds)

    @rule(seconds=st.sampled_from([0.2, 0.999999, 1.0, 61.5, 3600.0]))
    def somebody_sets_the_server_s_clock_back(self, seconds: float) -> None:
        self.now -= micros(seconds)

    @rule(order=st.sampled_from(Order), reporter=reporters)
    def people_meddle(self, order: Order, reporter: str) -> None:
        if order is Order.RESET or self.now % 4 == 0:  # what people hold would make most histories dull
            self.exchange(reporter, Told(), order, 0.0)

    @rule()
    def look(self) -> None:
        looked = finished(
            circuit_script.ask(
                self.shared,
                Asker(self.name, self.config),
                Told(),
                circuit_script.LOOK,
                now=0.0,
                chance=0.0,
                server_time=self.clock,
            )
        )
        assert looked[2] == self.circuit.epoch

    @invariant()
    def there_are_never_more_probes_than_allowed(self) -> None:
        assert not hasattr(self, "circuit") or self.circuit.in_flight <= self.config.half_open_max_calls

    @invariant()
    def the_window_holds_ten_seconds_at_most(self) -> None:
        if hasattr(self, "circuit"):
            assert len(self.circuit.window.buckets) <= Window.SPAN


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with PrivateRedis() as server, quick(server.url) as client:
        yield client


def test_lua_and_python_agree_on_every_history(client: redis.Redis) -> None:
    SameTrace.client = client
    run_state_machine_as_test(
        SameTrace, settings=settings(max_examples=HISTORIES, stateful_step_count=STEPS, deadline=None)
    )


def test_they_agree_on_twelve_thousand_steps_in_which_everything_happens(client: redis.Redis) -> None:
    SameTrace.client, SameTrace.taken = client, 0
    SameTrace.seen = set()
    for number, config in enumerate(CONFIGS):
        walk(config, random.Random(number))
    assert SameTrace.taken >= WALK * len(CONFIGS)
    assert {cause for _, cause, _ in TRANSITIONS} <= SameTrace.seen


def walk(config: CircuitBreakerConfig, dice: random.Random) -> None:
    """One long history, in which calls are common and meddling is rare."""
    machine = SameTrace()
    machine.begin(config)
    begun = SameTrace.taken
    while SameTrace.taken - begun < WALK:
        who, chance = dice.choice(REPORTERS[: dice.choice((1, 3, 3))]), dice.random()
        match dice.choices(("ask", "tell", "burst", "time", "back", "order"), (40, 40, 5, 30, 1, 1))[0]:
            case "ask":
                machine.ask_leave(who, chance, dice.choice((0, 0, 5, 32)))
            case "tell" if machine.permits:
                machine.tell(
                    who,
                    chance,
                    dice.randrange(1000),
                    dice.choice((0, 1, 2, 20)),
                    int(dice.random() < 0.4),
                    dice.random() < 0.3,
                    dice.randrange(SECOND),
                )
            case "burst":
                machine.a_burst(who, chance, dice.randrange(1, 12), dice.randrange(12))
            case "time":
                machine.time_passes(dice.choice((0.001, 0.1, 1.0, 5.0, LEASE, 20.0)))
            case "back":
                machine.somebody_sets_the_server_s_clock_back(dice.choice((0.5, 3600.0)))
            case "order":
                machine.people_meddle(dice.choice((Order.OPEN, Order.RESET)), who)
        if not SameTrace.taken % 20:
            machine.look()
        machine.there_are_never_more_probes_than_allowed()
        machine.the_window_holds_ten_seconds_at_most()
