"""Finding what is lost, on a real Redis, without a worker: what it does is what it finds."""

from collections.abc import Callable, Iterator

import pytest

from bridge_tasks import events
from bridge_tasks.ledger import keys
from bridge_tasks.places import Place
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.settings import LedgerSettings
from bridge_tasks.worker.reconciler import Reconciler
from tests.ledger.conftest import QUEUE, Desk
from tests.workers import eventually

AT_ONCE = {"look_seconds": 0.000001}
"""Nothing has to be old to be missing."""


@pytest.fixture
def reconciler(ledger_server: PrivateRedis) -> Iterator[Reconciler]:
    reconciler = Reconciler(Place(ledger_server.url), LedgerSettings(**AT_ONCE), "w1")
    yield reconciler
    reconciler.stop_client()


def test_a_message_that_waits_in_its_queue_is_left_there(desk: Desk, reconciler: Reconciler) -> None:
    for name in "abc":
        desk.put(name)
    for _ in range(3):
        reconciler.look()
    assert desk.waiting() == ["a", "b", "c"]


def test_a_message_that_a_living_worker_holds_is_left_with_it(desk: Desk, reconciler: Reconciler) -> None:
    desk.put("a")
    desk.fetch("w1")
    for _ in range(3):
        reconciler.look()
    assert desk.waiting() == []


def test_a_message_that_is_nowhere_is_put_back_at_the_second_look(
    desk: Desk, reconciler: Reconciler, facts: list[events.Event]
) -> None:
    desk.put("lost")
    desk.client.rpop(QUEUE)
    desk.put("after it")
    reconciler.look()
    assert desk.waiting() == ["after it"]
    reconciler.look()
    assert desk.waiting() == ["after it", "lost"]
    assert desk.record("lost").requeued == 1
    assert [fact.task_id for fact in facts if isinstance(fact, events.MessageRequeued)] == ["lost"]
    for _ in range(3):
        reconciler.look()
    assert desk.waiting() == ["after it", "lost"], "once"


def test_a_message_that_was_lost_while_it_ran_is_put_back(desk: Desk, reconciler: Reconciler) -> None:
    desk.put("a")
    desk.client.rpop(QUEUE)
    desk.begin("a", worker="w2")
    for _ in range(2):
        reconciler.look()
    assert desk.waiting() == ["a"]


def test_what_a_dead_worker_held_goes_back_first_in_line(
    desk: Desk, reconciler: Reconciler, facts: list[events.Event]
) -> None:
    desk.lives("w2")
    desk.put("a")
    assert desk.fetch("w2") == "a"
    desk.put("b")
    desk.dies("w2")
    reconciler.look()
    assert desk.waiting() == ["a", "b"]
    assert desk.client.exists(keys.UNACKED + "w2", keys.UNACKED_INDEX + "w2") == 0
    assert [fact.count for fact in facts if isinstance(fact, events.MessagesRestored)] == [1]
    reconciler.look()
    assert desk.waiting() == ["a", "b"]


@pytest.mark.parametrize(
    "raw",
    [
        "no JSON",
        "[" * 9999,
        "[]",
        "7",
        '"text"',
        '["text", "", "q"]',
        '[{"headers": 1, "properties": {}}, "", "q"]',
        '[{"headers": {}, "properties": []}, "", "q"]',
        '[{"headers": {}, "properties": {"delivery_info": []}}, "", "q"]',
        '[{"headers": {}, "properties": {"priority": "high"}}, "", "q"]',
    ],
    ids=lambda raw: raw[:40],
)
def test_what_a_dead_worker_held_and_nobody_can_read_is_dropped_and_the_rest_goes_back(
    raw: str, desk: Desk, reconciler: Reconciler, facts: list[events.Event]
) -> None:
    desk.lives("w2")
    desk.put("a")
    desk.client.hset(keys.UNACKED + "w2", "tag", raw)
    desk.client.zadd(keys.UNACKED_INDEX + "w2", {"tag": 0.5})
    desk.fetch("w2")
    reconciler.look()
    assert desk.waiting() == []
    desk.dies("w2")
    reconciler.look()
    assert desk.waiting() == ["a"]
    assert desk.client.exists(keys.UNACKED + "w2", keys.UNACKED_INDEX + "w2") == 0
    assert [fact.field for fact in facts if isinstance(fact, events.MessageDropped)] == ["message"]


def test_a_job_that_waits_beyond_the_greatest_age_is_a_dead_letter_that_says_so(
    desk_with: Callable[..., Desk], ledger_server: PrivateRedis, facts: list[events.Event]
) -> None:
    desk = desk_with(max_age=0.001)
    desk.put("a")
    reconciler = Reconciler(Place(ledger_server.url), LedgerSettings(max_age=0.001), "w1")
    while desk.record("a").state == "waiting":
        reconciler.look()
    reconciler.stop_client()
    outcome = desk.record("a").outcome
    assert outcome is not None
    assert "did not end within 0 s (BRIDGE_LEDGER__MAX_AGE)" in str(outcome.error)
    assert [fact.count for fact in facts if isinstance(fact, events.JobsExpired)] == [1]


def test_one_of_all_looks_and_another_takes_over_when_it_is_gone(desk: Desk, ledger_server: PrivateRedis) -> None:
    one, two = (Reconciler(Place(ledger_server.url), LedgerSettings(), name) for name in ("w1", "w2"))
    assert one.leads()
    assert one.leads()
    assert not two.leads()
    desk.client.delete("bridge:reconciler")
    assert two.leads()
    for reconciler in (one, two):
        reconciler.stop_client()


def test_what_is_lost_is_found_where_looks_are_set_closer_together_than_signs_of_life(
    desk: Desk, ledger_server: PrivateRedis
) -> None:
    """A lease that ended between two looks had every look begin anew, and nothing was ever missing twice."""
    settings = LedgerSettings(look_seconds=0.001, beat_seconds=0.2, dead_after=1)
    reconciler = Reconciler(Place(ledger_server.url), settings, "w1")
    desk.put("lost")
    desk.client.rpop(QUEUE)
    reconciler.start()
    try:
        assert eventually(lambda: desk.waiting() == ["lost"])
    finally:
        reconciler.stop()


def test_rights_that_a_worker_lacks_are_told_and_not_taken_for_an_outage(
    desk: Desk, ledger_server: PrivateRedis, caplog: pytest.LogCaptureFixture
) -> None:
    desk.client.acl_setuser("meek", enabled=True, nopass=True, commands=["+@all"], keys=["bridge:*"])
    settings = LedgerSettings(look_seconds=0.05, beat_seconds=0.05, dead_after=1)
    reconciler = Reconciler(Place(ledger_server.url.replace("://", "://meek:any@")), settings, "w1")
    try:
        reconciler.start()
        assert eventually(lambda: "nothing can be looked for" in caplog.text)
        assert "bridge-tasks check" in caplog.text
    finally:
        reconciler.stop()
        desk.client.acl_deluser("meek")
