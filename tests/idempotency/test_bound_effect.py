"""The effect of the work at hand is bound for a block, and its keys are the same in every run."""

import threading
from typing import Any

import pytest

from bridge_tasks import idempotency
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.idempotency import PATTERN, Effect


def test_nothing_is_bound_where_nobody_bound_it() -> None:
    assert idempotency.current() is None


def test_an_effect_holds_for_the_block_and_no_longer() -> None:
    outer, inner = Effect("outer"), Effect("inner", resumed=True)
    with idempotency.bound(outer):
        with idempotency.bound(inner) as bound:
            assert idempotency.current() is bound is inner
        assert idempotency.current() is outer
        with idempotency.bound(None) as kept:
            assert kept is outer
    assert idempotency.current() is None


def test_an_effect_is_gone_after_an_error_too() -> None:
    with pytest.raises(RuntimeError), idempotency.bound(Effect("key")):
        raise RuntimeError
    assert idempotency.current() is None


def test_a_thread_of_its_own_has_no_effect() -> None:
    seen: list[Effect | None] = []
    with idempotency.bound(Effect("key")):
        thread = threading.Thread(target=lambda: seen.append(idempotency.current()))
        thread.start()
        thread.join()
    assert seen == [None]


@pytest.mark.parametrize("key", ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "a" * 64, "A.b_c~d-9"])
def test_a_key_is_url_safe(key: str) -> None:
    assert Effect(key).key == key


@pytest.mark.parametrize("key", ["", "a" * 65, "a b", "a/b", "ä", 'a"', "a\n", None, 7])
def test_another_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Effect(key)
    assert refused.value.field == "idempotency_key"


def test_the_key_of_a_part_is_the_same_in_every_run_and_only_there() -> None:
    first, later = Effect("key"), Effect("key").again()
    assert later.resumed
    assert first.part("stamp", "a") == later.part("stamp", "a")
    keys = {
        first.part("stamp", "a"),
        first.part("stampa"),
        first.part("stam", "pa"),
        first.part("stamp", "a", ""),
        first.part(),
        Effect("other").part("stamp", "a"),
    }
    assert len(keys) == 6
    assert all(PATTERN.fullmatch(key) for key in keys)


def test_a_key_can_be_made_of_any_text() -> None:
    assert PATTERN.fullmatch(idempotency.key_of("päth/\ud800", "x" * 10_000))


def test_the_header_is_a_quoted_string() -> None:
    assert idempotency.header("abc") == {"Idempotency-Key": '"abc"'}
