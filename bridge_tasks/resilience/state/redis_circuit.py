"""A circuit that all processes share: state in Redis, rules in `lua/circuit.lua`, a snapshot in each process.

The snapshot answers for up to a second, so a call through a closed circuit asks nobody and refusing is free.
Successes are put by and told together; a failure is told at once, and the answer is the new state. While Redis is
away a `LocalCircuitStore` goes on from what was known; when it is back, what all processes share wins. What is put
by is `put_by`'s business, and a process that alone sees the service fail `stepping_aside`'s.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from bridge_tasks import events
from bridge_tasks.resilience.policy import breaker
from bridge_tasks.resilience.policy.breaker import (
    Circuit,
    CircuitBreakerConfig,
    CircuitState,
    Order,
    Outcome,
    Permit,
    Rejection,
    micros,
)
from bridge_tasks.resilience.state import circuit_script
from bridge_tasks.resilience.state.circuit_script import Asker, Reply, Told, process_name
from bridge_tasks.resilience.state.local import LocalCircuitStore
from bridge_tasks.resilience.state.port import Change
from bridge_tasks.resilience.state.put_by import PutBy
from bridge_tasks.resilience.state.shared_redis import SharedRedis, StoreUnavailable
from bridge_tasks.resilience.state.stepping_aside import NEVER, Aside

FRESH_SECONDS = 1.0
"""How long a snapshot answers by itself: the longest that a lost push can go unnoticed."""

FULL_SECONDS = 0.1
"""How long "all probes are out" is believed without asking again: that one came back is not pushed."""

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

_tokens = itertools.count(1)


class Listener(Protocol):
    """Brings what other processes changed."""

    def follow(self, store: "RedisCircuitStore") -> None:
        """Tell `store` from now on. Idempotent, cheap, and safe after a fork."""
        ...


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The circuit as last heard of, and `permit` where any call may have it without another thought."""

    circuit: Circuit = field(default_factory=Circuit)
    at: float = NEVER
    fresh_until: float = NEVER
    permit: Permit | None = None


@dataclass(frozen=True, slots=True)
class _LocalPermit(Permit):
    """Given while Redis was away; it goes back to who gave it."""

    giver: LocalCircuitStore | None = None


class RedisCircuitStore:
    """A `CircuitStore` in Redis.

    Args:
        name: the circuit's; all processes that use it share the circuit.
        config: the rules' numbers.
        shared: the Redis.
        clock: seconds, monotonic.
        chance: a number drawn from [0, 1).
        listener: brings changes as they happen; without one they are noticed within a second.
        server_time: microseconds to use in place of Redis's own clock; for tests.
        reporter: what tells this process from all others.

    Raises:
        ValueError: the name cannot be part of a key.
    """

    def __init__(
        self,
        name: str,
        config: CircuitBreakerConfig,
        shared: SharedRedis,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        listener: Listener | None = None,
        server_time: Callable[[], int] = int,
        reporter: Callable[[], str] = process_name,
    ) -> None:
        circuit_script.key(name)  # a name that cannot work is refused here, not at the first call
        self.name = name
        self._config = config
        self._shared = shared
        self._clock = clock
        self._chance = chance
        self._listener = listener
        self._server_time = server_time
        self._reporter = reporter
        self._lock = threading.Lock()
        self._snapshot = _Snapshot()
        self._put_by = PutBy()
        self._aside = Aside(config)
        self._local: LocalCircuitStore | None = None
        self._full_until = NEVER

    def view(self) -> Circuit:
        """Return the circuit as this process knows it, with what it has not told yet."""
        local = self._local
        return local.view() if local is not None else self._put_by.on_top_of(self._snapshot.circuit)

    async def admit(self, lease: float) -> tuple[Permit | Rejection, Change | None]:
        """Ask leave for one call: of the snapshot, else of Redis, else of what this process knows."""
        snapshot = self._snapshot
        now = self._clock()
        if snapshot.permit is not None and now < snapshot.fresh_until:
            return snapshot.permit, None
        if now < self._aside.until:
            return Rejection("is OPEN, blocking requests (of this process only)", self._aside.until - now), None
        if self._shared.available:
            decision = self._decide(snapshot, now)
            if decision is not None:
                return decision, None
            try:
                return await self._ask_leave(lease)
            except StoreUnavailable:
                pass
        local = self._alone()
        decision, change = await local.admit(lease)
        if isinstance(decision, Permit):
            decision = _LocalPermit(decision.epoch, decision.token, local)
        return decision, change

    async def record(self, permit: Permit, outcome: Outcome, *, slow: bool = False) -> Change | None:
        """Hand a permit back: a success is put by, anything else that says something is told at once."""
        if isinstance(permit, _LocalPermit) and permit.giver is not None:
            return await permit.giver.record(permit, outcome, slow=slow)
        if not permit.token and outcome is Outcome.SUCCESS:
            return await self.flush() if self._put_success_by(permit, slow=slow) else None
        if not permit.token and outcome is Outcome.NEUTRAL:
            self._aside.finds_out(self._clock())  # it was to find out something, and did not
            return None
        good, bad = int(outcome is Outcome.SUCCESS), int(outcome is Outcome.FAILURE)
        told = Told(permit.epoch, good, bad, int(good and slow), 0, permit.token)
        if bad:
            before = self._take_put_by()
            if before is not None and before.epoch == permit.epoch and not permit.token:
                told = replace(before, failures=1)
        try:
            reply = await self._exchange(told)
        except StoreUnavailable:
            return await self._alone().record(permit, outcome, slow=slow)
        if bad:
            self._consider(reply)
        return _change(reply)

    async def order(self, order: Order) -> Change | None:
        """Open, hold, disable or reset it by hand: for all processes, or for this one while Redis is away."""
        await self.flush()
        try:
            return _change(await self._exchange(Told(), order))
        except StoreUnavailable:
            return await self._alone().order(order)

    async def flush(self) -> Change | None:
        """Tell the successes that were put by; while Redis is away they are let go."""
        told = self._take_put_by()
        if told is None:
            return None
        try:
            return _change(await self._exchange(told))
        except StoreUnavailable:
            return None

    @property
    def overdue(self) -> bool:
        """Whether successes were put by longer ago than a snapshot lasts; for idle moments."""
        return self._put_by.overdue(self._clock())

    def learn(self, numbers: Sequence[int]) -> None:
        """Take in a pushed state, if it is newer than what is known."""
        now = self._clock()
        reply = circuit_script.read(numbers, now)
        if reply.circuit.epoch > self._snapshot.circuit.epoch:
            self._adopt(reply, now, now)

    def doubt(self) -> None:
        """Trust the snapshot no more: something may have been missed."""
        with self._lock:
            self._snapshot = replace(self._snapshot, fresh_until=NEVER)

    def _decide(self, snapshot: _Snapshot, now: float) -> Permit | Rejection | None:
        """Decide by what is known, where that is fresh and enough; else None."""
        if now >= snapshot.fresh_until or self._aside.taken:
            return None
        circuit = snapshot.circuit
        if circuit.state is HALF_OPEN:
            left = self._full_until - now
            return Rejection("is HALF_OPEN, max concurrent calls reached", left) if left > 0 else None
        _, decision = breaker.admit(circuit, self._config, micros(now), chance=self._chance())
        return None if circuit.state is OPEN and isinstance(decision, Permit) else decision

    async def _ask_leave(self, lease: float) -> tuple[Permit | Rejection, Change | None]:
        token = f"{self._reporter()}-{next(_tokens)}"
        reply = await self._exchange(
            replace(self._take_put_by() or Told(), token=token), circuit_script.ADMIT, lease=lease
        )
        change, state = _change(reply), reply.circuit.state
        if reply.granted:
            self._aside.finds_out(self._clock() + lease)  # whether it was us
            return Permit(reply.circuit.epoch, token if state is HALF_OPEN else ""), change
        if state is HALF_OPEN:
            self._full_until = self._clock() + min(reply.wait, FULL_SECONDS)
        return Rejection(_REASONS[state], reply.wait), change

    async def _exchange(
        self, told: Told, wish: str | Order = circuit_script.NOTHING, *, lease: float = 0.0
    ) -> Reply:
        """Tell the news, say the wish, and adopt the answer: one round trip."""
        if self._listener is not None:
            self._listener.follow(self)
        sent_at = self._clock()
        numbers = await circuit_script.ask(
            self._shared,
            Asker(self.name, self._config, self._reporter()),
            told,
            wish,
            lease=lease,
            known=self.view(),
            now=sent_at,
            chance=self._chance(),
            server_time=self._server_time(),
        )
        now = self._clock()
        reply = circuit_script.read(numbers, now)
        self._adopt(reply, sent_at, now)
        return reply

    def _adopt(self, reply: Reply, sent_at: float, now: float) -> None:
        """Take over what all processes share, unless something newer is known already."""
        circuit = reply.circuit
        with self._lock:
            seen, local = self._snapshot, self._local
            if circuit.epoch < seen.circuit.epoch and sent_at <= seen.at:
                return
            if circuit.epoch != seen.circuit.epoch:
                self._full_until = NEVER
                self._aside.forget()
            free = circuit.flows and not self._aside.taken
            self._snapshot = _Snapshot(circuit, now, now + FRESH_SECONDS, Permit(circuit.epoch) if free else None)
            self._local = None
        before = (seen.circuit if local is None else local.view()).state
        if before is not circuit.state and reply.old is None:
            events.emit(events.CircuitFollowed(self.name, before, circuit.state, circuit.cause))

    def _put_success_by(self, permit: Permit, *, slow: bool) -> bool:
        """Keep a success for later; say whether now is the time to tell."""
        now = self._clock()
        with self._lock:
            put_by = self._put_by
            if not put_by.add(permit.epoch, slow=slow, now=now):
                return False
            return self._aside.succeeded() or put_by.due(now)

    def _take_put_by(self) -> Told | None:
        with self._lock:
            taken, self._put_by = self._put_by, PutBy()
        return taken.told(self._clock())

    def _consider(self, reply: Reply) -> None:
        """Take in a failure of our own: it may be this process that is ill, and not the service."""
        with self._lock:
            first = not self._aside.taken
            if not self._aside.failed(reply, self._clock()):
                return
            self._snapshot = replace(self._snapshot, permit=None)
        if first:
            events.emit(events.ProcessSteppedAside(self.name, self._config.recovery_timeout))

    def _alone(self) -> LocalCircuitStore:
        """Return the circuit that this process keeps for itself, begun from what was known."""
        with self._lock:
            if self._local is None:
                config = replace(self._config, half_open_max_calls=1)  # every process has one of these
                known = self._snapshot.circuit._replace(leases=())
                self._local = LocalCircuitStore(config, self._clock, chance=self._chance, circuit=known)
                self._snapshot = replace(self._snapshot, fresh_until=NEVER)  # one place decides and counts
            return self._local


_REASONS = {
    OPEN: "is OPEN, blocking requests",
    HALF_OPEN: "is HALF_OPEN, max concurrent calls reached",
    CLOSED: "is CLOSED, taking calls up again by and by",
}


def _change(reply: Reply) -> Change | None:
    return None if reply.old is None else Change(reply.old, reply.circuit.state, reply.circuit.cause)
