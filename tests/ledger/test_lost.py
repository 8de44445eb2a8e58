"""What is lost: a decision over what was seen."""

from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.ledger.lost import QueueSeen, lost

NAMES = st.sampled_from("abcdef")
TIMES = st.dictionaries(NAMES, st.integers(0, 3), max_size=6)


def test_what_is_missing_once_is_suspected_and_twice_is_lost() -> None:
    seen = QueueSeen({"a": 1}, set())
    found, suspects = lost(seen, {})
    assert (found, suspects) == ([], {"a": 1})
    assert lost(seen, suspects) == (["a"], {})


def test_what_a_worker_holds_is_not_lost() -> None:
    assert lost(QueueSeen({"a": 1}, {"a"}), {"a": 1}) == ([], {})


def test_what_was_sent_again_meanwhile_is_suspected_anew() -> None:
    assert lost(QueueSeen({"a": 2}, set()), {"a": 1}) == ([], {"a": 2})


@given(candidates=TIMES, held=st.sets(NAMES), suspects=TIMES)
def test_only_what_was_missing_twice_unchanged_is_lost(
    candidates: dict[str, int], held: set[str], suspects: dict[str, int]
) -> None:
    found, next_suspects = lost(QueueSeen(candidates, held), suspects)
    assert set(found) == {one for one in candidates if one not in held and suspects.get(one) == candidates[one]}
    assert set(next_suspects) == set(candidates) - held - set(found)
