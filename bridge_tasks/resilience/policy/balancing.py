"""Which replica a try goes to, and which ones rest: (replicas, event, now[, chance]) -> (replicas, decision).

Rule 1: of two replicas drawn by chance, the one with the lower cost gets the try; cost is (in flight + 1) x the
seconds of an answer. Rule 2: one that failed is not drawn for a moment, if another may be. Rule 3: one that only
fails is ejected for a while, longer each time in a row. Rule 4: never more than `max_ejected` rest, and where too
few are left (`panic`), nobody does: if everything looks bad, the looking is. Rule 5: of one that failed nothing is
known: one try at a time finds out.
"""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from math import exp, inf
from typing import NamedTuple

from bridge_tasks.resilience.policy.breaker import Outcome

FAILURE, NEUTRAL = Outcome.FAILURE, Outcome.NEUTRAL

LATENCY_MEMORY = 10.0
"""Seconds in which an old latency fades to a third: so long until a slow replica is given a chance (Finagle's)."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds for which a replica that failed is avoided: doubled with each failure in a row, and at most."""

NEWEST = 0.3
"""The weight of the newest latency against all before it."""


@dataclass(frozen=True)
class BalancingConfig:
    """When a replica rests, and how names are looked up. Resting is Envoy's outlier detection, for few replicas.

    Attributes:
        consecutive_failures: failures in a row that eject a replica.
        failure_share: share of failures within `interval`, 0..1, that ejects it (Envoy's 85 %).
        minimum_calls: calls within `interval` below which the share says nothing.
        interval: seconds; also how long a replica must stay well for one past ejection to be forgiven.
        ejection: seconds of the first ejection; the second in a row lasts twice that, and so on.
        max_ejection: seconds that no ejection exceeds.
        max_ejected: share of the replicas that may rest at once, 0..1; one may always, of two or more.
        panic: share of replicas that must be left, 0..1; with fewer, ejections are ignored.
        dns_ttl: seconds after which names are looked up again; 0: names are left to the system.
    """

    consecutive_failures: int = 5
    failure_share: float = 0.85
    minimum_calls: int = 20
    interval: float = 10.0
    ejection: float = 30.0
    max_ejection: float = 300.0
    max_ejected: float = 0.5
    panic: float = 0.5
    dns_ttl: float = 30.0

    def __post_init__(self) -> None:
        if self.consecutive_failures < 1 or self.minimum_calls < 1:
            raise ValueError("consecutive_failures and minimum_calls must be at least 1")
        for name in ("failure_share", "max_ejected", "panic"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1")
        if self.interval <= 0 or not 0 < self.ejection <= self.max_ejection:
            raise ValueError("interval and ejection must be above 0 seconds, ejection at most max_ejection")
        if self.dns_ttl < 0:
            raise ValueError("dns_ttl must not be negative")


class Replica(NamedTuple):
    """All that is remembered of one replica. Times are seconds of one monotonic clock.

    A tuple, because one is made twice per call, and a frozen dataclass takes five times as long.

    Attributes:
        name: what it is known by.
        in_flight: tries that it has now.
        latency: seconds of an answer, smoothed; None: not known yet, or no longer.
        seen_at: when that was last told.
        failures: in a row.
        avoided_until: until when others are preferred.
        window_at: when the window began that the next two count in.
        window_calls: tries that ended.
        window_failures: those of them that failed.
        ejected_until: when it returns, or last returned.
        ejections: in a row, the current one included.
    """

    name: Hashable
    in_flight: int = 0
    latency: float | None = None
    seen_at: float = -inf
    failures: int = 0
    avoided_until: float = -inf
    window_at: float = -inf
    window_calls: int = 0
    window_failures: int = 0
    ejected_until: float = -inf
    ejections: int = 0


Replicas = tuple[Replica, ...]
"""The replicas of one service, in no particular order."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """A replica was sent to rest for `seconds`."""

    name: Hashable
    seconds: float
    cause: str


def members(replicas: Replicas, names: Sequence[Hashable]) -> Replicas:
    """Go over to the replicas of these names: what is known of those that stay is kept."""
    known = {replica.name: replica for replica in replicas}
    return tuple(known.get(name) or Replica(name) for name in names)


def pick(
    replicas: Replicas, config: BalancingConfig, now: float, chance: float, met: Sequence[Hashable] = ()
) -> tuple[Replicas, Replica]:
    """Choose a replica for a try of a call that has `met` these so far, oldest first; it has one more in flight.

    Those met are avoided while another may be had; the last one met, while any other may.
    """
    able = replicas if not met and _all_well(replicas, now) else _preferred(replicas, config, now, met)
    chosen = _cheaper_of_two(able, now, chance) if len(able) > 1 else able[0]
    busier = _carrying(chosen, chosen.in_flight + 1)
    return _exchanged(replicas, replicas.index(chosen), busier), busier


def spare(replicas: Replicas, config: BalancingConfig, now: float, met: Collection[Hashable]) -> bool:
    """Say whether a replica that may be used is left that the call has not met."""
    return bool(_without(_able(replicas, config, now), met))


def settle(
    replicas: Replicas,
    config: BalancingConfig,
    name: Hashable,
    outcome: Outcome,
    seconds: float | None,
    now: float,
) -> tuple[Replicas, Ejection | None]:
    """Take in how a try ended.

    Args:
        replicas: as it is now.
        config: the numbers.
        name: the replica; one that has left meanwhile is no matter.
        outcome: NEUTRAL says nothing of its health.
        seconds: what the answer took, or a cut-off one at least; None says nothing of its speed.
        now: the clock.
    """
    place = _place(replicas, name)
    if place < 0:
        return replicas, None
    before = replicas[place]
    after = _told(before, config, outcome, seconds, now)
    cause = _cause(after, config) if outcome is FAILURE and not _rests(before, now) else None
    if cause is None or not _may_rest(replicas, config, now):
        return _exchanged(replicas, place, after), None
    after = _ejected(after, config, now)
    return _exchanged(replicas, place, after), Ejection(name, after.ejected_until - now, cause)


def cost(replica: Replica, now: float) -> float:
    """Say what one more try would cost there: seconds, to be compared and nothing else."""
    if replica.latency is None:
        return inf if replica.in_flight else 0.0  # not known: one try shall find out
    return replica.latency * exp((replica.seen_at - now) / LATENCY_MEMORY) * (replica.in_flight + 1)


def _cheaper_of_two(able: Sequence[Replica], now: float, chance: float) -> Replica:
    others = len(able) - 1
    first, second = divmod(int(chance * len(able) * others), others)
    second += second >= first
    one, other = able[first], able[second]
    price, other_price = cost(one, now), cost(other, now)
    cheaper = other_price < price or (other_price == price and other.in_flight < one.in_flight)
    return other if cheaper else one


def _all_well(replicas: Replicas, now: float) -> bool:
    """Say whether nobody rests and nobody is avoided: nearly always, and then nothing need be sorted out."""
    for replica in replicas:  # noqa: SIM110 - at each call, and a generator costs as much as all the rest here
        if replica.avoided_until > now or replica.ejected_until > now:
            return False
    return True


def _preferred(
    replicas: Replicas, config: BalancingConfig, now: float, met: Sequence[Hashable]
) -> Sequence[Replica]:
    able = _able(replicas, config, now)
    if met:
        able = _without(able, met) or _without(able, met[-1:]) or able
    return [replica for replica in able if replica.avoided_until <= now] or able


def _able(replicas: Replicas, config: BalancingConfig, now: float) -> Sequence[Replica]:
    able = [replica for replica in replicas if replica.ejected_until <= now]
    return able if able and len(able) >= config.panic * len(replicas) else replicas


def _without(replicas: Sequence[Replica], names: Collection[Hashable]) -> Sequence[Replica]:
    return [replica for replica in replicas if replica.name not in names]


def _place(replicas: Replicas, name: Hashable) -> int:
    for place, replica in enumerate(replicas):
        if replica.name == name:
            return place
    return -1


def _exchanged(replicas: Replicas, place: int, after: Replica) -> Replicas:
    return (*replicas[:place], after, *replicas[place + 1 :])


def _carrying(replica: Replica, in_flight: int) -> Replica:
    return Replica._make((replica.name, in_flight, *replica[2:]))  # half the time of `_replace`


def _told(
    replica: Replica, config: BalancingConfig, outcome: Outcome, seconds: float | None, now: float
) -> Replica:
    name, in_flight, latency, _, failures, _, window_at, calls, failed_calls, *past = replica
    in_flight = in_flight - 1 if in_flight else 0  # it may have left and come back meanwhile
    if outcome is NEUTRAL:
        if seconds is None or seconds <= (latency or 0.0):
            return _carrying(replica, in_flight)
        return replica._replace(in_flight=in_flight, latency=seconds, seen_at=now)
    if now - window_at >= config.interval:
        window_at, calls, failed_calls = now, 0, 0
    if outcome is FAILURE:
        until, calls, failed_calls = now + _pause(failures), calls + 1, failed_calls + 1
        failing = (None, now, failures + 1, until, window_at, calls, failed_calls)
        return Replica._make((name, in_flight, *failing, *past))
    well = (_smoothed(latency, seconds), now, 0, -inf, window_at, calls + 1, failed_calls)
    return Replica._make((name, in_flight, *well, *past))


def _smoothed(latency: float | None, seconds: float | None) -> float | None:
    if seconds is None or latency is None:
        return latency if seconds is None else seconds
    return latency + NEWEST * (seconds - latency)


def _pause(failures: int) -> float:
    """Return how long a replica is avoided that had failed so often in a row before."""
    return min(FIRST_PAUSE * 2.0 ** min(failures, 16), LONGEST_PAUSE)


def _cause(replica: Replica, config: BalancingConfig) -> str | None:
    if replica.failures >= config.consecutive_failures:
        return "failures in a row"
    enough = replica.window_calls >= config.minimum_calls
    if enough and replica.window_failures >= config.failure_share * replica.window_calls:
        return "share of failures"
    return None


def _rests(replica: Replica, now: float) -> bool:
    return replica.ejected_until > now


def _may_rest(replicas: Replicas, config: BalancingConfig, now: float) -> bool:
    resting = sum(_rests(replica, now) for replica in replicas)
    return len(replicas) > 1 and resting + 1 <= max(1, int(config.max_ejected * len(replicas)))


def _ejected(replica: Replica, config: BalancingConfig, now: float) -> Replica:
    """Send it to rest. The first failure after its return will eject it again."""
    forgiven = int(min((now - replica.ejected_until) / config.interval, replica.ejections))
    in_a_row = replica.ejections - forgiven + 1
    return Replica(
        name=replica.name,
        in_flight=replica.in_flight,
        failures=config.consecutive_failures - 1,
        avoided_until=replica.avoided_until,
        ejected_until=now + min(config.ejection * in_a_row, config.max_ejection),
        ejections=in_a_row,
    )
