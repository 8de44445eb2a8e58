"""How `lua/circuit.lua` is spoken to: a circuit's key, the script's arguments, its answer. It decides nothing."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from bridge_tasks.resilience.policy.breaker import (
    Cause,
    Circuit,
    CircuitBreakerConfig,
    CircuitState,
    Lease,
    Manual,
    Order,
    micros,
)
from bridge_tasks.resilience.policy.window import SECOND
from bridge_tasks.resilience.state.shared_redis import Script, SharedRedis

CHANNEL = "bridge:v1:circuits"
"""Where the script publishes each transition: the first 14 numbers of its answer, and the circuit's name."""

PUSHED = 14

CLOSED, OPEN, HALF_OPEN = STATES = tuple(CircuitState)
MANUALS = tuple(Manual)
CAUSES = tuple(Cause)
"""In the order of the script's numbers."""

NOTHING, LOOK, ADMIT = "", "look", "admit"
"""What may be wished for, besides an `Order`. LOOK writes nothing."""

_KEY = "bridge:v1:circuit:{%s}"
_ELSEWHERE = Lease("", 0)
"""Stands for a probe of which this process knows only that it is out."""

_HOST = secrets.token_hex(6)
"""Tells apart processes of the same number on different hosts."""


def key(name: str) -> str:
    """Return the Redis key of the circuit `name`.

    Raises:
        ValueError: the name cannot be part of a key.
    """
    if not name or not name.isprintable() or set(name) & set("{} "):
        raise ValueError("a circuit's name must be printable, without spaces and braces")
    return _KEY % name


def process_name() -> str:
    """Return what tells this process, as an asker, from all others."""
    return f"{os.getpid()}-{_HOST}"


@cache
def script() -> Script:
    """Return the rules in Lua, read once."""
    return Script("circuit")


@cache
def configured(config: CircuitBreakerConfig) -> tuple[object, ...]:
    """Return the configuration as the script's arguments."""
    return (
        config.failure_threshold,
        config.minimum_throughput,
        micros(config.recovery_timeout),
        micros(config.max_recovery_timeout),
        config.half_open_max_calls,
        config.success_threshold,
        repr(float(config.failure_rate_threshold)),
        repr(float(config.slow_rate_threshold)),
        micros(config.ramp_seconds),
    )


@dataclass(frozen=True, slots=True)
class Told:
    """News as it travels. Relative time only: `age` is the microseconds since the last of the successes."""

    epoch: int = 0
    successes: int = 0
    failures: int = 0
    slow: int = 0
    age: int = 0
    token: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, about what, by which rules."""

    name: str
    config: CircuitBreakerConfig
    reporter: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The circuit, in the asker's time, and what became of the wish.

    Attributes:
        granted: leave was given.
        wait: seconds until asking again makes sense, where it was not.
        old: the state before, if this very message made a transition.
        suspect: only the asker reports failures, so it had better stop by itself.
    """

    circuit: Circuit
    granted: bool = False
    wait: float = 0.0
    old: CircuitState | None = None
    suspect: bool = False


def read(numbers: Sequence[int], now: float) -> Reply:
    """Read the script's answer, or its first `PUSHED` numbers; `now` is the asker's clock in seconds."""
    state, manual, epoch, cause, left, since, open_for, reopenings, in_flight, *counts = numbers[:PUSHED]
    failures, successes, total, run, good = counts
    is_open = STATES[state] is OPEN
    circuit = Circuit(
        state=STATES[state],
        manual=MANUALS[manual],
        epoch=epoch,
        cause=CAUSES[cause],
        changed_at=micros(now) - since,
        open_for=since + left if is_open else open_for,  # the time left is what counts
        reopenings=reopenings,
        ramps=STATES[state] is CLOSED and left > 0,
        leases=(_ELSEWHERE,) * in_flight,
        failures=failures,
        successes=successes,
        total_calls=total,
        consecutive_failures=run,
        consecutive_successes=good,
    )
    if len(numbers) == PUSHED:
        return Reply(circuit)
    decision, wait, old, suspect = numbers[PUSHED:]
    return Reply(circuit, decision == 1, wait / SECOND, STATES[old] if old >= 0 else None, bool(suspect))


async def ask(
    shared: SharedRedis,
    asker: Asker,
    told: Told,
    wish: str | Order,
    *,
    lease: float = 0.0,
    known: Circuit | None = None,
    now: float,
    chance: float,
    server_time: int = 0,
) -> Sequence[int]:
    """Send one message and return the script's numbers.

    Args:
        shared: the Redis.
        asker: who asks.
        told: the news.
        wish: what is wanted besides.
        lease: seconds that a probe has.
        known: the circuit as the asker knows it, from which a Redis that has forgotten begins again.
        now: the asker's clock, in seconds, in which `known` is told.
        chance: a number drawn from [0, 1).
        server_time: microseconds in place of Redis's own clock; 0 for that clock.

    Raises:
        StoreUnavailable: Redis is away.
    """
    known = known or Circuit()
    left = max(known.changed_at + known.open_for - micros(now), 0) if known.state is OPEN else 0
    answer: Sequence[int] = await shared.run(
        script(),
        [key(asker.name)],
        [
            *(server_time, repr(chance), asker.reporter, asker.name),
            *configured(asker.config),
            *(STATES.index(known.state), MANUALS.index(known.manual), known.epoch, left, known.reopenings),
            *(told.epoch, told.successes, told.failures, told.slow, told.age, told.token),
            *(str(wish), micros(lease)),
        ],
    )
    return answer
