"""Who is taken for dead: only those whose sign stood still for somebody who watched all the time."""

import pytest

from bridge_tasks.ledger.workers import Watched, silent


def watched(*looks: dict[str, str | None], allowed: int = 2) -> list[list[str]]:
    """The dead of each look."""
    known: Watched = {}
    found = []
    for signs in looks:
        dead, known = silent(signs, known, allowed)
        found.append(dead)
    return found


def test_a_sign_that_goes_on_is_life() -> None:
    assert watched({"a": "1"}, {"a": "2"}, {"a": "3"}, {"a": "4"}) == [[], [], [], []]


def test_a_sign_that_stands_still_for_long_enough_is_death() -> None:
    assert watched({"a": "1"}, {"a": "1"}, {"a": "1"}) == [[], [], ["a"]]


def test_a_late_sign_is_life_again() -> None:
    assert watched({"a": "1"}, {"a": "1"}, {"a": "2"}, {"a": "2"}) == [[], [], [], []]


def test_a_sign_that_goes_back_as_redis_lost_the_last_second_is_life() -> None:
    assert watched({"a": "7"}, {"a": "5"}, {"a": "7"}) == [[], [], []]


def test_who_has_left_is_dead_at_once() -> None:
    assert watched({"a": None, "b": "1"}) == [["a"]]


@pytest.mark.parametrize("looks", [1, 2, 5])
def test_who_begins_to_watch_takes_nobody_for_dead(looks: int) -> None:
    dead, known = silent({"a": "1", "b": "9"}, {}, looks)

    assert not dead
    assert known == {"a": ("1", 0), "b": ("9", 0)}
