"""How a question gets its answer: who asks, who waits, what stands in when the service fails."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import orjson
import pytest

from bridge_tasks import events
from bridge_tasks.cache import Answering, Kept, LocalCache
from bridge_tasks.cache.answering import Asking
from bridge_tasks.errors import CircuitBreakerError, ClientError, RateLimited, ServiceUnavailableError
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.bottom import asyncio_bottom
from bridge_tasks.resilience.transport.deadline import remaining
from tests.cache.questions import RULES, TTL, about, look
from tests.never_suspending import finished
from tests.stopped_clock import StoppedClock

AUTH = about("auth")
GOOD = {"nodes": ["a"], "metadata": {"depth": 3}}
DOWN = ServiceUnavailableError("it is down")
DEADLINE = 30.0


class Service:
    """Answers from a script, the last line for ever, and counts how often it was asked."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.asked = 0
        self.meanwhile: Callable[[], None] = lambda: None

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        self.meanwhile()
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(line, BaseException):
            raise line
        assert isinstance(line, dict)
        return line


class Asker:
    """A client of the service, over one cache."""

    def __init__(self, clock: StoppedClock, cache: LocalCache | None = None) -> None:
        self.cache = LocalCache(rules=RULES, clock=clock, chance=lambda: 0.0) if cache is None else cache
        self.looks: list[bool] = []
        bottom = replace(blocking_bottom(), clock=clock, sleep=clock.sleep, chance=lambda: 0.5)
        self.answering = Answering(self.cache, RULES, bottom, patience=10.0, deadline=DEADLINE)

    def __call__(self, service: Service, *, bypass: bool = False) -> dict[str, Any]:
        question = asking(service)
        if bypass:
            return finished(self.answering.ask(question, dict, TTL))
        return finished(self.answering.answer(question, dict, TTL, self.looks.append))


def asking(service: Callable[[], Any]) -> Asking:
    return Asking(
        "OnexTree",
        "navigate_tree",
        AUTH,
        service,
        worth_keeping=lambda data: "emergency" not in data,
        final=lambda error: error.status == 404,
    )


@pytest.fixture
def ask(clock: StoppedClock) -> Asker:
    return Asker(clock)


def test_a_question_is_asked_once_and_then_known(ask: Asker) -> None:
    service = Service(GOOD)
    assert ask(service) == ask(service) == GOOD
    assert (service.asked, ask.looks) == (1, [False, True])


def test_a_bypass_asks_and_its_answer_is_kept(ask: Asker, clock: StoppedClock) -> None:
    service = Service(GOOD, {"nodes": ["b"]})
    ask(service)
    clock.advance(1)
    assert ask(service, bypass=True) == {"nodes": ["b"]}
    assert ask(service) == {"nodes": ["b"]}
    assert (service.asked, ask.looks) == (2, [False, True])


def test_a_bypass_meets_errors_and_emergencies_as_they_are(ask: Asker) -> None:
    service = Service(DOWN, {"emergency": 1}, GOOD)
    with pytest.raises(ServiceUnavailableError, match="it is down"):
        ask(service, bypass=True)
    assert ask(service, bypass=True) == {"emergency": 1}
    assert ask(service) == GOOD


# When its time is over


@pytest.mark.parametrize(
    "trouble",
    [
        DOWN,
        CircuitBreakerError("the circuit is OPEN", None, None, 5.0),
        ClientError("crashed", 500),
        ClientError("busy", 429),
        ClientError("an answer that is not JSON"),
        {"emergency": "no tree loaded"},
    ],
    ids=str,
)
@pytest.mark.parametrize("seconds", [TTL + 1, TTL + 100], ids=["stale", "reserve"])
def test_while_the_service_fails_the_older_answer_is_served_and_says_how_old_it_is(
    trouble: Any, seconds: float, ask: Asker, clock: StoppedClock, facts: list[events.Event]
) -> None:
    if isinstance(trouble, ClientError) and trouble.status == 429:
        trouble = ServiceUnavailableError("busy", 429)
    service = Service(GOOD, trouble)
    ask(service)
    clock.advance(seconds)
    for _ in range(10):
        answer = ask(service)
        assert answer == {"nodes": ["a"], "metadata": {"depth": 3, "stale": True, "age_seconds": seconds}}
    assert service.asked == 2, "one try, and then nobody tries for a while"
    clock.advance(RULES.pause_after_failure)
    ask(service)
    assert service.asked == 3
    told = [fact for fact in facts if isinstance(fact, events.StaleAnswerServed)]
    assert len(told) == 11
    assert told[0].age == seconds


def test_a_recovered_service_is_heard_at_once_after_the_pause(ask: Asker, clock: StoppedClock) -> None:
    service = Service(GOOD, DOWN, {"nodes": ["new"]})
    ask(service)
    clock.advance(TTL + 1)
    assert ask(service)["metadata"]["stale"]
    clock.advance(RULES.pause_after_failure)
    assert ask(service) == ask(service) == {"nodes": ["new"]}
    assert service.asked == 3


def test_a_refusal_is_a_refusal_whatever_is_kept(ask: Asker, clock: StoppedClock) -> None:
    service = Service(GOOD, ClientError("bad question", 422))
    ask(service)
    clock.advance(TTL + 1)
    with pytest.raises(ClientError, match="bad question"):
        ask(service)
    with pytest.raises(ClientError, match="bad question"):
        ask(service)


def test_with_nothing_kept_an_outage_is_an_outage_for_each_caller(ask: Asker) -> None:
    service = Service(DOWN)
    for _ in range(3):
        with pytest.raises(ServiceUnavailableError, match="it is down"):
            ask(service)
    assert service.asked == 3


def test_when_even_the_reserve_is_over_an_outage_shows(ask: Asker, clock: StoppedClock) -> None:
    service = Service(GOOD, DOWN)
    ask(service)
    clock.advance(TTL + 257)
    with pytest.raises(ServiceUnavailableError):
        ask(service)


def test_with_an_older_answer_at_hand_the_service_gets_one_try_s_time(ask: Asker, clock: StoppedClock) -> None:
    service, left = Service(GOOD), []
    service.meanwhile = lambda: left.append(remaining(clock))
    ask(service)
    clock.advance(TTL + 1)
    ask(service)
    assert left == [float("inf"), 10.0]


def test_a_stale_answer_without_metadata_gets_some(ask: Asker, clock: StoppedClock) -> None:
    service = Service({"nodes": []}, DOWN)
    ask(service)
    clock.advance(TTL + 1)
    assert ask(service) == {"nodes": [], "metadata": {"stale": True, "age_seconds": TTL + 1}}


# Refusals


def test_no_such_thing_is_remembered_for_a_short_time_and_told_the_same_way(
    ask: Asker, clock: StoppedClock
) -> None:
    service = Service(ClientError("there is no such node", 404, "NODE_NOT_FOUND"), GOOD)
    told = []
    for _ in range(3):
        with pytest.raises(ClientError, match="there is no such node") as refused:
            ask(service)
        told.append((refused.value.status, refused.value.code))
    assert told == [(404, "NODE_NOT_FOUND")] * 3
    assert service.asked == 1
    clock.advance(RULES.negative_ttl + 1)
    assert ask(service) == GOOD


@pytest.mark.parametrize("status", [400, 422, 500])
def test_other_refusals_are_not_remembered(status: int, ask: Asker) -> None:
    service = Service(ClientError("no", status), GOOD)
    with pytest.raises(ClientError):
        ask(service)
    assert ask(service) == GOOD


# What is kept


def test_an_emergency_answer_is_given_and_not_kept(ask: Asker) -> None:
    service = Service({"emergency": 1}, GOOD)
    assert ask(service) == {"emergency": 1}
    assert ask(service) == GOOD


@pytest.mark.parametrize("unfit", [2**64, "\ud800"])
def test_an_answer_that_cannot_be_packed_is_let_go_and_its_lease_too(unfit: Any, ask: Asker) -> None:
    service = Service({"value": unfit})
    assert ask(service) == ask(service) == {"value": unfit}
    assert (service.asked, len(ask.cache)) == (2, 0)


@pytest.mark.parametrize("packed", [b"[1]", b"null", b"{", b"\xff", b""])
@pytest.mark.parametrize("refusal", [False, True])
def test_what_is_kept_and_cannot_be_read_is_dropped_and_asked_anew(
    packed: bytes, refusal: bool, ask: Asker
) -> None:
    finished(ask.cache.keep(AUTH, Kept(packed, 0.0, RULES.life(TTL), refusal), None))
    assert ask(Service(GOOD)) == GOOD
    assert finished(ask.cache.stats()).dropped == 1


def test_an_unreadable_older_answer_does_not_stand_in(ask: Asker, clock: StoppedClock) -> None:
    finished(ask.cache.keep(AUTH, Kept(b"{", 0.0, RULES.life(TTL)), None))
    clock.advance(TTL + 1)
    with pytest.raises(ServiceUnavailableError, match="it is down"):
        ask(Service(DOWN))


@pytest.mark.parametrize("end", [KeyboardInterrupt(), asyncio.CancelledError(), MemoryError(), ValueError("ours")])
def test_however_the_asking_ends_the_lease_goes_back(end: BaseException, ask: Asker) -> None:
    with pytest.raises(type(end)):
        ask(Service(end))
    assert look(ask.cache, AUTH).lease, "the next caller may ask at once"


# Waiting


def test_who_waits_is_served_when_the_other_s_answer_comes(ask: Asker, clock: StoppedClock) -> None:
    lease = look(ask.cache, AUTH).lease
    service = Service({"never": "asked"})
    naps_until_answer = 5

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        if len(clock.naps) == naps_until_answer:
            await ask.cache.keep(AUTH, Kept(orjson.dumps(GOOD), 0.1, RULES.life(TTL)), lease)

    bottom = replace(blocking_bottom(), clock=clock, sleep=sleep, chance=lambda: 0.5)
    waiting = Answering(ask.cache, RULES, bottom, patience=10.0, deadline=DEADLINE)
    assert finished(waiting.answer(asking(service), dict, TTL, ask.looks.append)) == GOOD
    assert service.asked == 0
    assert clock.naps == sorted(clock.naps), "the naps grow"
    assert ask.looks == [False]


def test_who_waits_for_a_dead_holder_asks_after_the_lease(ask: Asker, clock: StoppedClock) -> None:
    look(ask.cache, AUTH)
    service = Service(GOOD)
    began = clock.now
    assert ask(service) == GOOD
    assert service.asked == 1
    assert RULES.lease <= clock.now - began <= RULES.lease + 0.1


def test_who_waits_never_waits_longer_than_a_call_may_take(clock: StoppedClock) -> None:
    held_for_ever = replace(RULES, lease=300.0)
    ask = Asker(clock, LocalCache(rules=held_for_ever, clock=clock))
    look(ask.cache, AUTH)
    began = clock.now
    with pytest.raises(ServiceUnavailableError, match="another caller"):
        ask(Service(GOOD))
    assert clock.now - began == pytest.approx(DEADLINE, abs=0.2)


def test_who_waited_in_vain_gets_the_older_answer_if_there_is_one(clock: StoppedClock) -> None:
    ask = Asker(clock, LocalCache(rules=replace(RULES, lease=300.0), clock=clock))
    service = Service(GOOD)
    ask(service)
    clock.advance(TTL + 20)
    look(ask.cache, AUTH)
    assert ask(service)["metadata"]["stale"]
    assert service.asked == 1


def test_who_waited_shares_in_the_failure(ask: Asker, clock: StoppedClock) -> None:
    lease = look(ask.cache, AUTH).lease

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        await ask.cache.give_up(AUTH, lease, failed=True)

    bottom = replace(blocking_bottom(), clock=clock, sleep=sleep)
    waiting = Answering(ask.cache, RULES, bottom, patience=10.0, deadline=DEADLINE)
    service = Service(GOOD)
    with pytest.raises(ServiceUnavailableError, match="another caller") as shared:
        finished(waiting.answer(asking(service), dict, TTL, ask.looks.append))
    assert service.asked == 0
    assert shared.value.unsent, "a job that meets this has used no attempt"


def test_our_own_rate_limit_is_no_failure_to_share(ask: Asker, clock: StoppedClock) -> None:
    with pytest.raises(RateLimited):
        ask(Service(RateLimited("no tokens left")))
    assert look(ask.cache, AUTH, waiting=True).lease, "who waited asks for itself"
    clock.advance(RULES.lease)
    service = Service(GOOD, RateLimited("no tokens left"))
    ask(service)
    clock.advance(TTL + 1)
    assert ask(service)["metadata"]["stale"]


async def test_64_coroutines_with_one_question_ask_once() -> None:
    asked = 0

    async def slow() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.1)
        return GOOD

    answering = Answering(LocalCache(), RULES, asyncio_bottom(), patience=10.0, deadline=DEADLINE)
    answers = await asyncio.gather(*(answering.answer(asking(slow), dict, TTL, lambda _: None) for _ in range(64)))
    assert answers == [GOOD] * 64
    assert asked == 1


def test_64_threads_with_one_question_ask_once() -> None:
    service, answered, together = Service(GOOD), threading.Event(), threading.Barrier(64)

    def work_a_while() -> None:
        answered.wait(0.1)

    service.meanwhile = work_a_while
    answering = Answering(LocalCache(), RULES, blocking_bottom(), patience=10.0, deadline=DEADLINE)

    def one(_: int) -> dict[str, Any]:
        together.wait()
        return finished(answering.answer(asking(service), dict, TTL, lambda _: None))

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(one, range(64)))
    assert answers == [GOOD] * 64
    assert service.asked == 1
