"""Which replica gets a try, and which ones rest: no clock, no chance, only arithmetic."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge_tasks.resilience.policy.balancing import (
    BalancingConfig,
    Replica,
    Replicas,
    cost,
    members,
    pick,
    settle,
    spare,
)
from bridge_tasks.resilience.policy.breaker import Outcome

CONFIG = BalancingConfig()
NOW = 1000.0
GOOD, BAD, NEUTRAL = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEUTRAL


def fresh(count: int) -> Replicas:
    return members((), [f"replica-{number}" for number in range(count)])


def told(replicas: Replicas, name: str, *outcomes: Outcome, seconds: float = 0.01, now: float = NOW) -> Replicas:
    for outcome in outcomes:
        replicas, _ = settle(replicas, CONFIG, name, outcome, seconds, now)
    return replicas


def resting(replicas: Replicas, now: float) -> list[Any]:
    return [replica.name for replica in replicas if replica.ejected_until > now]


def named(replicas: Replicas, name: str) -> Replica:
    return next(replica for replica in replicas if replica.name == name)


def shares(replicas: Replicas, now: float, met: Sequence[str] = (), picks: int = 1000) -> Counter[Any]:
    """Count what is picked over all of chance; nothing of it is in flight afterwards."""
    return Counter(pick(replicas, CONFIG, now, number / picks, met)[1].name for number in range(picks))


# -- the choice


def test_replicas_that_are_alike_share_the_tries_evenly() -> None:
    replicas = fresh(4)
    for name in ("replica-0", "replica-1", "replica-2", "replica-3"):
        replicas = told(replicas, name, GOOD)
    assert all(200 <= share <= 300 for share in shares(replicas, NOW).values())


def test_of_two_the_one_with_fewer_in_flight_gets_the_try() -> None:
    replicas = told(told(fresh(2), "replica-0", GOOD), "replica-1", GOOD)
    _, first = pick(replicas, CONFIG, NOW, 0.0)
    busy, _ = pick(replicas, CONFIG, NOW, 0.0)
    assert first.name == "replica-0"
    assert shares(busy, NOW) == {"replica-1": 1000}


def test_a_replica_ten_times_as_slow_gets_a_try_only_when_the_other_has_ten_in_flight() -> None:
    replicas = told(told(fresh(2), "replica-0", GOOD, seconds=0.1), "replica-1", GOOD, seconds=0.01)
    picked = []
    for _ in range(11):
        replicas, replica = pick(replicas, CONFIG, NOW, 0.0)
        picked.append(replica.name)
    assert picked[:9] == ["replica-1"] * 9
    assert "replica-0" in picked


def test_a_replica_that_nobody_knows_is_tried_by_one_call_at_a_time() -> None:
    replicas = told(fresh(2), "replica-0", GOOD)
    replicas, first = pick(replicas, CONFIG, NOW, 0.0)
    replicas, second = pick(replicas, CONFIG, NOW, 0.0)
    assert (first.name, second.name) == ("replica-1", "replica-0")


def test_a_slow_replica_is_given_another_chance_after_a_while() -> None:
    replicas = told(fresh(2), "replica-0", GOOD, seconds=1.0)
    replicas = told(replicas, "replica-1", GOOD, seconds=0.01)
    assert shares(replicas, NOW) == {"replica-1": 1000}
    replicas = told(replicas, "replica-1", GOOD, seconds=0.01, now=NOW + 60)
    assert shares(replicas, NOW + 60) == {"replica-0": 1000}


def test_a_replica_that_failed_is_avoided_for_a_second_and_twice_that_with_each_failure_in_a_row() -> None:
    replicas, now, avoided = told(fresh(2), "replica-0", GOOD), NOW, []
    for _ in range(4):
        replicas = told(replicas, "replica-1", BAD, seconds=0.0001, now=now)
        seconds = next(s for s in range(100) if "replica-1" in shares(replicas, now + s, picks=2))
        avoided.append(seconds)
        now += seconds
    assert avoided == [1, 2, 4, 8]


def test_a_replica_that_failed_is_no_worse_than_others_that_failed() -> None:
    replicas = told(told(fresh(2), "replica-0", BAD), "replica-1", BAD, BAD)
    assert set(shares(replicas, NOW)) == {"replica-0", "replica-1"}


def test_a_replica_that_failed_is_tried_by_one_call_at_a_time_afterwards() -> None:
    replicas = told(told(fresh(2), "replica-0", GOOD), "replica-1", GOOD, BAD)
    replicas, first = pick(replicas, CONFIG, NOW + 1, 0.0)
    assert first.name == "replica-1"
    assert shares(replicas, NOW + 1) == {"replica-0": 1000}


def test_a_try_that_was_cut_off_tells_that_it_took_that_long_at_least() -> None:
    replicas = told(fresh(1), "replica-0", GOOD, seconds=0.01)
    assert named(told(replicas, "replica-0", NEUTRAL, seconds=2.0), "replica-0").latency == 2.0
    assert named(told(replicas, "replica-0", NEUTRAL, seconds=0.001), "replica-0").latency == 0.01


def test_a_call_avoids_every_replica_it_has_met_and_in_need_at_least_the_last() -> None:
    replicas = fresh(3)
    assert set(shares(replicas, NOW, ["replica-0"])) == {"replica-1", "replica-2"}
    assert set(shares(replicas, NOW, ["replica-0", "replica-2"])) == {"replica-1"}
    assert "replica-1" not in shares(replicas, NOW, ["replica-0", "replica-2", "replica-1"])
    assert set(shares(fresh(1), NOW, ["replica-0"])) == {"replica-0"}


def test_a_spare_replica_is_one_that_works_and_was_not_met() -> None:
    replicas = told(fresh(2), "replica-0", *[BAD] * 5)
    assert spare(replicas, CONFIG, NOW, [])
    assert not spare(replicas, CONFIG, NOW, ["replica-1"])
    assert spare(replicas, CONFIG, NOW + 30, ["replica-1"])


# -- ejection


def test_five_failures_in_a_row_eject_for_thirty_seconds() -> None:
    replicas = told(fresh(2), "replica-0", BAD, BAD, BAD, BAD)
    assert resting(replicas, NOW) == []
    replicas, ejection = settle(replicas, CONFIG, "replica-0", BAD, 0.01, NOW)
    assert ejection is not None
    assert (ejection.name, ejection.seconds, ejection.cause) == ("replica-0", 30.0, "failures in a row")
    assert resting(replicas, NOW + 29.9) == ["replica-0"]
    assert resting(replicas, NOW + 30) == []
    assert set(shares(replicas, NOW)) == {"replica-1"}


def test_a_success_or_nothing_at_all_between_failures_is_another_matter() -> None:
    assert resting(told(fresh(2), "replica-0", *[BAD] * 4, GOOD, *[BAD] * 4), NOW) == []
    assert resting(told(fresh(2), "replica-0", *[BAD] * 4, NEUTRAL, BAD), NOW) == ["replica-0"]


def test_a_share_of_failures_ejects_once_there_were_enough_calls() -> None:
    mostly_bad = ([BAD] * 4 + [GOOD]) * 3 + [BAD] * 4  # 19 calls, never five failures in a row
    config = BalancingConfig(failure_share=0.8)
    replicas = fresh(2)
    for outcome in mostly_bad:
        replicas, ejection = settle(replicas, config, "replica-0", outcome, 0.01, NOW)
        assert ejection is None
    replicas, _ = settle(replicas, config, "replica-0", GOOD, 0.01, NOW)
    replicas, ejection = settle(replicas, config, "replica-0", BAD, 0.01, NOW)
    assert ejection is not None
    assert ejection.cause == "share of failures"


def test_calls_of_an_earlier_interval_do_not_count_into_the_share() -> None:
    config = BalancingConfig(consecutive_failures=1000)
    replicas = fresh(2)
    for second in range(60):  # a failure a second: ten in each interval
        replicas, ejection = settle(replicas, config, "replica-0", BAD, 0.01, NOW + second)
        assert ejection is None


def test_the_first_failure_after_the_return_ejects_again_and_for_longer_up_to_a_limit() -> None:
    replicas, now = told(fresh(2), "replica-0", *[BAD] * 4), NOW
    lasted = []
    for _ in range(12):
        replicas, ejection = settle(replicas, CONFIG, "replica-0", BAD, 0.01, now)
        assert ejection is not None
        lasted.append(ejection.seconds)
        now += ejection.seconds + CONFIG.interval / 2
    assert lasted == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]


def test_each_interval_since_the_return_forgives_one_ejection() -> None:
    replicas, now = told(fresh(2), "replica-0", *[BAD] * 5), NOW + 30
    for _ in range(3):
        replicas, ejection = settle(replicas, CONFIG, "replica-0", BAD, 0.01, now)
        assert ejection is not None
        now += ejection.seconds
    assert named(replicas, "replica-0").ejections == 4
    # Given success for two intervals after the return, then trouble again
    replicas = told(replicas, "replica-0", GOOD, now=now)
    replicas = told(replicas, "replica-0", *[BAD] * 4, now=now + 2 * CONFIG.interval)
    _, ejection = settle(replicas, CONFIG, "replica-0", BAD, 0.01, now + 2 * CONFIG.interval)
    assert ejection is not None
    assert ejection.seconds == 30.0 * 3


def test_after_its_return_one_try_finds_out() -> None:
    replicas = told(fresh(2), "replica-0", *[BAD] * 5)
    replicas = told(replicas, "replica-1", GOOD, now=NOW + 30)
    replicas, first = pick(replicas, CONFIG, NOW + 30, 0.0)
    assert first.name == "replica-0"
    assert shares(replicas, NOW + 30) == {"replica-1": 1000}


def test_late_failures_do_not_prolong_an_ejection() -> None:
    replicas = told(fresh(2), "replica-0", *[BAD] * 5)
    assert named(told(replicas, "replica-0", *[BAD] * 20, now=NOW + 10), "replica-0").ejected_until == NOW + 30


@pytest.mark.parametrize(("count", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)])
def test_never_more_than_half_rest_but_one_of_several_may(count: int, most: int) -> None:
    replicas = fresh(count)
    for replica in replicas:
        replicas = told(replicas, str(replica.name), *[BAD] * 10)
    assert len(resting(replicas, NOW)) == most


def test_where_too_few_are_left_everybody_works() -> None:
    # Given two of five at rest, and two well ones that leave: one of three is left
    replicas = told(told(fresh(5), "replica-0", *[BAD] * 5), "replica-1", *[BAD] * 5)
    assert set(shares(replicas, NOW)) == {"replica-2", "replica-3", "replica-4"}
    replicas = members(replicas, ["replica-0", "replica-1", "replica-2"])
    assert set(shares(replicas, NOW + CONFIG.ejection - 1)) == {"replica-0", "replica-1", "replica-2"}


def test_who_stays_keeps_what_is_known_of_it_and_who_left_is_no_matter() -> None:
    replicas = told(fresh(2), "replica-0", GOOD, seconds=0.5)
    replicas = members(replicas, ["replica-2", "replica-0"])
    assert [(replica.name, replica.latency) for replica in replicas] == [("replica-2", None), ("replica-0", 0.5)]
    assert told(replicas, "replica-1", BAD) == replicas


@pytest.mark.parametrize(
    "wrong",
    [
        {"consecutive_failures": 0},
        {"minimum_calls": 0},
        {"failure_share": 1.1},
        {"max_ejected": -0.1},
        {"panic": 2},
        {"interval": 0},
        {"ejection": 0},
        {"ejection": 301.0},
        {"dns_ttl": -1},
    ],
    ids=str,
)
def test_a_number_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BalancingConfig(**wrong)


# -- properties


class AnyTraffic(RuleBasedStateMachine):
    """Picks, ends, time and changes of the replicas in any order; what was picked is settled once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.replicas = fresh(3)
        self.out: list[Any] = []

    @rule(chance=st.floats(0, 1, exclude_max=True), met=st.lists(st.integers(0, 5), max_size=3))
    def begin(self, chance: float, met: list[int]) -> None:
        self.replicas, replica = pick(
            self.replicas, CONFIG, self.now, chance, [f"replica-{number}" for number in met]
        )
        self.out.append(replica.name)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), seconds=st.none() | st.floats(0, 60))
    def end(self, data: st.DataObject, outcome: Outcome, seconds: float | None) -> None:
        name = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.replicas, ejection = settle(self.replicas, CONFIG, name, outcome, seconds, self.now)
        if ejection is not None:
            assert outcome is BAD
            assert 0 < ejection.seconds <= CONFIG.max_ejection

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.out)
    @rule(names=st.sets(st.integers(0, 5), min_size=1))
    def change(self, names: set[int]) -> None:
        self.replicas = members(self.replicas, [f"replica-{number}" for number in sorted(names)])

    @invariant()
    def nobody_is_lost(self) -> None:
        assert {replica.name: replica.in_flight for replica in self.replicas if replica.in_flight} == Counter(
            self.out
        )

    @invariant()
    def costs_can_be_compared(self) -> None:
        costs = sorted(cost(replica, self.now) for replica in self.replicas)
        assert all(0 <= less <= more for less, more in pairwise([0.0, *costs]))

    @invariant()
    def somebody_always_works(self) -> None:
        _, replica = pick(self.replicas, CONFIG, self.now, 0.5)
        assert replica.name in {one.name for one in self.replicas}


TestAnyTraffic = AnyTraffic.TestCase


@given(
    count=st.integers(2, 12),
    chance=st.floats(0, 1, exclude_max=True),
    bad=st.sets(st.integers(0, 11), max_size=6),
)
def test_who_rests_gets_no_try_while_half_of_them_work(count: int, chance: float, bad: set[int]) -> None:
    replicas = fresh(count)
    for number in bad:
        replicas = told(replicas, f"replica-{number}", *[BAD] * 5)
    _, replica = pick(replicas, CONFIG, NOW, chance)
    assert replica.name not in resting(replicas, NOW)


@pytest.mark.parametrize(("dead", "most"), [(1, 10), (2, 35)])
def test_with_dead_replicas_among_three_nearly_all_tries_go_to_those_that_work(dead: int, most: int) -> None:
    """Also where more are dead than may rest: ten minutes of ten calls a second."""
    chance = Random(7)
    replicas = fresh(3)
    asked: Counter[Any] = Counter()
    for tenth in range(6000):
        now = NOW + tenth / 10
        replicas, replica = pick(replicas, CONFIG, now, chance.random())
        asked[replica.name] += 1
        bad = replica.name in [f"replica-{number}" for number in range(dead)]
        replicas, _ = settle(
            replicas, CONFIG, replica.name, BAD if bad else GOOD, 0.001 if bad else 0.01, now + 0.01
        )
    assert sum(asked[f"replica-{number}"] for number in range(dead)) <= most
