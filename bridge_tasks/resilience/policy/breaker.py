"""The circuit breaker's rules: (circuit, event, now[, chance]) -> (circuit, decision). `TRANSITIONS` is the map.

Rule 1: every transition raises the epoch; news from an older epoch is counted and changes nothing else.
Rule 2: a probe is a lease. Its outcome counts while the lease runs; one that ran out is no evidence.
Rule 3: only HALF_OPEN limits calls in flight. Rule 4: a neutral outcome frees its place and says nothing.
`state/lua/circuit.lua` says the same in Lua: change both, or `tests/state/test_circuit_differential.py` is red.
"""

from bridge_tasks.resilience.policy.circuit import (
    Cause,
    Circuit,
    CircuitBreakerConfig,
    CircuitState,
    Lease,
    Manual,
    News,
    Order,
    Outcome,
    Permit,
    Rejection,
    Voices,
    micros,
)
from bridge_tasks.resilience.policy.window import SECOND, Window

__all__ = [
    "TRANSITIONS",
    "Cause",
    "Circuit",
    "CircuitBreakerConfig",
    "CircuitState",
    "Lease",
    "Manual",
    "News",
    "Order",
    "Outcome",
    "Permit",
    "Rejection",
    "Voices",
    "admit",
    "micros",
    "obey",
    "ramp_left",
    "report",
]

RATE_CALLS = 20
"""Calls in the window below which no rate says anything."""

FAST_SECONDS, FAST_CALLS, FAST_RATE = 2, 10, 0.9
"""A sudden death is seen sooner: this share of at least so many calls, in so many seconds."""

LOST_PROBES = 2
"""So many probes lost one after the other (their workers were killed) say that this is no time to probe."""

FULL_PAUSE = SECOND
"""When to ask again if all probes are out: one usually ends long before its lease does."""

FIRST_SHARE = 0.1
"""The share of calls let through at the beginning of the ramp after closing."""

TRANSITIONS = (
    (CircuitState.CLOSED, Cause.RUN, CircuitState.OPEN),
    (CircuitState.CLOSED, Cause.RATE, CircuitState.OPEN),
    (CircuitState.CLOSED, Cause.SLOW, CircuitState.OPEN),
    (CircuitState.OPEN, Cause.RECOVERY, CircuitState.HALF_OPEN),
    (CircuitState.HALF_OPEN, Cause.PROBE_FAILED, CircuitState.OPEN),
    (CircuitState.HALF_OPEN, Cause.PROBES_LOST, CircuitState.OPEN),
    (CircuitState.HALF_OPEN, Cause.PROBES_GOOD, CircuitState.CLOSED),
)
"""Every transition there is, besides those that people order."""


def admit(
    circuit: Circuit,
    config: CircuitBreakerConfig,
    now: int,
    *,
    token: str = "",
    lease: int = 0,
    chance: float = 0.0,
) -> tuple[Circuit, Permit | Rejection]:
    """Decide whether one call may be made now; a probe gets `token` for `lease` microseconds."""
    if circuit.state is CircuitState.CLOSED:
        return circuit, _ramping(circuit, config, now, chance) or Permit(circuit.epoch)
    if circuit.state is CircuitState.OPEN:
        if circuit.manual is Manual.HELD:
            return circuit, Rejection("is OPEN, blocking requests (held by hand)", config.recovery_timeout)
        left = circuit.changed_at + circuit.open_for - now
        if left > 0:
            return circuit, Rejection("is OPEN, blocking requests", left / SECOND)
        circuit = _enter(circuit, CircuitState.HALF_OPEN, Cause.RECOVERY, now)
    circuit = _swept(circuit, config, now, chance)
    if circuit.state is CircuitState.OPEN:
        return circuit, Rejection("is OPEN, blocking requests", circuit.open_for / SECOND)
    if circuit.in_flight >= config.half_open_max_calls:
        wait = min(FULL_PAUSE, min(held.expires_at for held in circuit.leases) - now)
        return circuit, Rejection("is HALF_OPEN, max concurrent calls reached", wait / SECOND)
    granted = Lease(token, now + lease)
    return circuit._replace(leases=(*circuit.leases, granted)), Permit(circuit.epoch, token)


def report(circuit: Circuit, config: CircuitBreakerConfig, news: News, now: int, chance: float = 0.0) -> Circuit:
    """Take in what came of calls that were admitted."""
    if news.reporter:
        circuit = circuit._replace(heard=circuit.heard.hear(news.reporter, now))
    circuit = _swept(circuit, config, now, chance)
    current = news.epoch == circuit.epoch
    if circuit.state is CircuitState.HALF_OPEN:
        kept = tuple(lease for lease in circuit.leases if lease.token != news.token)
        current = current and len(kept) < len(circuit.leases)
        if current:
            circuit = circuit._replace(leases=kept)
    if not news.successes and not news.failures:
        return circuit
    circuit = _counted(circuit, config, news, now, current=current)
    return _judged(circuit, config, news, now, chance) if current else circuit


def obey(circuit: Circuit, config: CircuitBreakerConfig, order: Order, now: int) -> Circuit:
    """Do what people ordered. RESET and DISABLE forget everything but the epoch; opening keeps the counts."""
    if order in (Order.OPEN, Order.HOLD):
        opened = _opened(circuit._replace(reopenings=0), config, Cause.OPENED, now, 0.0)
        return opened._replace(manual=Manual.HELD if order is Order.HOLD else Manual.NONE)
    disabled = order is Order.DISABLE
    return Circuit(
        manual=Manual.DISABLED if disabled else Manual.NONE,
        epoch=max(circuit.epoch + 1, now),
        cause=Cause.DISABLED if disabled else Cause.RESET,
        changed_at=now,
        heard=circuit.heard,
    )


def ramp_left(circuit: Circuit, config: CircuitBreakerConfig, now: int) -> int:
    """Return the microseconds until all calls are let through again."""
    return max(circuit.changed_at + micros(config.ramp_seconds) - now, 0) if circuit.ramps else 0


def _ramping(circuit: Circuit, config: CircuitBreakerConfig, now: int, chance: float) -> Rejection | None:
    """Refuse by chance while the ramp lasts; `retry_after` is when this very chance would be let through."""
    left = ramp_left(circuit, config, now)
    if not left:
        return None
    ramp = micros(config.ramp_seconds)
    refused = left - (1.0 - chance) * ramp / (1.0 - FIRST_SHARE)
    return Rejection("is CLOSED, taking calls up again by and by", refused / SECOND) if refused > 0 else None


def _counted(circuit: Circuit, config: CircuitBreakerConfig, news: News, now: int, *, current: bool) -> Circuit:
    total = circuit.total_calls + news.successes + news.failures
    failures, successes = circuit.failures + news.failures, circuit.successes + news.successes
    if not current:
        return circuit._replace(total_calls=total, failures=failures, successes=successes)
    run, good, began = circuit.consecutive_failures, circuit.consecutive_successes, circuit.run_began
    if news.successes and (run == 0 or news.succeeded_at >= began):  # an older one says nothing about this run
        run, good = 0, good + news.successes
    if news.failures:
        run, good, began = run + news.failures, 0, began if run else now
    window, complaining = circuit.window, circuit.complaining
    if config.watches_rates and circuit.state is CircuitState.CLOSED:
        window = window.add(now, news.successes + news.failures, news.failures, news.slow)
    if news.reporter and (news.failures or news.slow):
        complaining = complaining.hear(news.reporter, now)
    return circuit._replace(
        total_calls=total,
        failures=failures,
        successes=successes,
        consecutive_failures=run,
        consecutive_successes=good,
        run_began=began,
        window=window,
        complaining=complaining,
        suspect="",
    )


def _judged(circuit: Circuit, config: CircuitBreakerConfig, news: News, now: int, chance: float) -> Circuit:
    if circuit.state is CircuitState.HALF_OPEN:
        return _probed(circuit, config, news, now, chance)
    if circuit.state is CircuitState.OPEN or circuit.manual is Manual.DISABLED:
        return circuit
    cause = _reason_to_open(circuit, config, news, now)
    if cause is None:
        return circuit
    alone = not circuit.complaining.others(news.reporter, now)
    if alone and circuit.heard.others(news.reporter, now):
        return circuit._replace(suspect=news.reporter)
    return _opened(circuit, config, cause, now, chance)


def _probed(circuit: Circuit, config: CircuitBreakerConfig, news: News, now: int, chance: float) -> Circuit:
    if news.failures or (news.slow and config.slow_rate_threshold < 1):
        return _reopened(circuit, config, Cause.PROBE_FAILED, now, chance)
    if circuit.consecutive_successes >= config.success_threshold:
        closed = _enter(circuit, CircuitState.CLOSED, Cause.PROBES_GOOD, now)
        return closed._replace(failures=0, reopenings=0, ramps=True)
    return circuit._replace(lost=0)


def _reason_to_open(circuit: Circuit, config: CircuitBreakerConfig, news: News, now: int) -> Cause | None:
    if news.failures:
        enough = circuit.total_calls >= config.minimum_throughput
        if enough and circuit.consecutive_failures >= config.failure_threshold:
            return Cause.RUN
        if config.failure_rate_threshold < 1 and _fails_often(circuit, config, now):
            return Cause.RATE
    if news.slow and config.slow_rate_threshold < 1:
        calls, _, slow = circuit.window.last(Window.SPAN, now)
        if calls >= RATE_CALLS and slow >= config.slow_rate_threshold * calls:
            return Cause.SLOW
    return None


def _fails_often(circuit: Circuit, config: CircuitBreakerConfig, now: int) -> bool:
    calls, failures, _ = circuit.window.last(Window.SPAN, now)
    if calls >= RATE_CALLS and failures >= config.failure_rate_threshold * calls:
        return True
    calls, failures, _ = circuit.window.last(FAST_SECONDS, now)
    return calls >= FAST_CALLS and failures >= FAST_RATE * calls


def _swept(circuit: Circuit, config: CircuitBreakerConfig, now: int, chance: float) -> Circuit:
    """Drop the leases that ran out; too many in a row, and the circuit opens again."""
    kept = tuple(lease for lease in circuit.leases if lease.expires_at > now)
    if len(kept) == len(circuit.leases):
        return circuit
    circuit = circuit._replace(leases=kept, lost=circuit.lost + len(circuit.leases) - len(kept))
    return _reopened(circuit, config, Cause.PROBES_LOST, now, chance) if circuit.lost >= LOST_PROBES else circuit


def _reopened(circuit: Circuit, config: CircuitBreakerConfig, cause: Cause, now: int, chance: float) -> Circuit:
    return _opened(circuit._replace(reopenings=circuit.reopenings + 1), config, cause, now, chance)


def _opened(circuit: Circuit, config: CircuitBreakerConfig, cause: Cause, now: int, chance: float) -> Circuit:
    """Open for `recovery_timeout`, and after failed recoveries for longer: doubled, the later half by chance."""
    first = micros(config.recovery_timeout)
    longest = max(first, micros(config.max_recovery_timeout))
    longer = min(longest, first * 2 ** min(circuit.reopenings, 20)) - first
    open_for = first + int(longer * (0.5 + chance / 2))
    return _enter(circuit, CircuitState.OPEN, cause, now)._replace(open_for=open_for)


def _enter(circuit: Circuit, state: CircuitState, cause: Cause, now: int) -> Circuit:
    """Change the state: a new epoch, with no probe out and the window empty."""
    closing = state is not CircuitState.OPEN  # opening keeps the run that led to it, for people to see
    return circuit._replace(
        state=state,
        epoch=max(circuit.epoch + 1, now),
        cause=cause,
        changed_at=now,
        ramps=False,
        leases=(),
        lost=0,
        consecutive_failures=0 if closing else circuit.consecutive_failures,
        consecutive_successes=0 if closing else circuit.consecutive_successes,
        window=Window(),
        complaining=Voices(),
        suspect="",
    )
