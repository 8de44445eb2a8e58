"""Names and their addresses: looked up beside the calls, kept while look-ups fail."""

import asyncio
import socket
import threading
import time
from typing import Any

import httpx
import pytest

from bridge_tasks import events
from bridge_tasks.resilience.transport import resolving
from bridge_tasks.resilience.transport.resolving import (
    LookUp,
    Targets,
    Told,
    look_up_in_task,
    look_up_in_thread,
)
from tests.stopped_clock import StoppedClock

V4, V6 = socket.AF_INET, socket.AF_INET6


class FakeNames:
    """Answers what it is told to, at once; counts the questions."""

    def __init__(self, **answers: list[str] | Exception) -> None:
        self.answers = answers
        self.questions: list[tuple[str, int]] = []

    def look_up(self, name: str, port: int, tell: Told) -> None:
        self.questions.append((name, port))
        tell(self.answers[name])


def targets(clock: StoppedClock, look_up: LookUp | None, *urls: str, ttl: float = 30.0) -> Targets:
    return Targets([httpx.URL(url) for url in urls], look_up=look_up, ttl=ttl, clock=clock)


def hosts(found: Targets) -> list[str]:
    return [target.host for target in found.current()]


def test_a_name_stands_for_its_addresses_once_they_are_known(clock: StoppedClock) -> None:
    later: list[Told] = []
    found = targets(clock, lambda _name, _port, tell: later.append(tell), "http://svc:8053")
    assert hosts(found) == ["svc"]
    later[0](["10.0.0.2", "10.0.0.1"])
    assert hosts(found) == ["10.0.0.1", "10.0.0.2"]
    first = found.current()[0]
    assert (first.authority, first.name, str(first)) == ("svc:8053", "svc", "10.0.0.1:8053")


def test_a_name_is_looked_up_again_only_after_its_time(clock: StoppedClock, facts: list[events.Event]) -> None:
    names = FakeNames(svc=["10.0.0.1", "10.0.0.2"])
    found = targets(clock, names.look_up, "https://svc")
    known = found.current()
    for _ in range(29):
        clock.advance(1.0)
        assert found.current() is known
    assert names.questions == [("svc", 443)]
    # Given another answer, and then the same in another order
    for answer in (["10.0.0.3", "10.0.0.2"], ["10.0.0.2", "10.0.0.3"]):
        names.answers["svc"] = answer
        clock.advance(30.0)
        assert hosts(found) == ["10.0.0.2", "10.0.0.3"]
    assert len(names.questions) == 3
    assert facts == [events.ReplicasChanged("svc", 2), events.ReplicasChanged("svc", 2)]


@pytest.mark.parametrize(
    ("failure", "cause"), [(socket.gaierror(-2, "not known"), "gaierror"), ([], "no address")], ids=str
)
def test_where_a_look_up_fails_what_was_known_holds(
    failure: list[str] | OSError, cause: str, clock: StoppedClock, facts: list[events.Event]
) -> None:
    names = FakeNames(svc=["10.0.0.1", "10.0.0.2"])
    found = targets(clock, names.look_up, "http://svc")
    known = found.current()
    facts.clear()
    names.answers["svc"] = failure
    clock.advance(30.0)
    assert found.current() is known
    assert facts == [events.NameLookupFailed("svc", cause)]


def test_a_name_that_was_never_found_is_left_to_the_system(clock: StoppedClock) -> None:
    names = FakeNames(svc=socket.gaierror(-3, "try again"))
    assert hosts(targets(clock, names.look_up, "http://svc")) == ["svc"]


def test_a_name_with_one_address_stays_a_name(clock: StoppedClock) -> None:
    names = FakeNames(svc=["10.0.0.1", "10.0.0.1"])
    found = targets(clock, names.look_up, "https://svc")
    assert [(target.host, target.name) for target in found.current()] == [("svc", None)]


def test_addresses_are_never_looked_up_and_names_not_without_a_resolver_or_a_time(clock: StoppedClock) -> None:
    names = FakeNames()
    for found in (
        targets(clock, names.look_up, "http://127.0.0.1:1", "http://[::1]:1"),
        targets(clock, None, "http://svc"),
        targets(clock, names.look_up, "http://svc", ttl=0),
        targets(clock, names.look_up, ""),
        targets(clock, names.look_up, "ftp://svc"),
    ):
        assert found.settled
        found.current()
    assert names.questions == []


def test_urls_and_names_mix_and_one_place_is_one_replica(clock: StoppedClock) -> None:
    names = FakeNames(a=["10.0.0.1", "10.0.0.2"], b=["10.0.0.2", "10.0.0.3"])
    found = targets(clock, names.look_up, "http://10.0.0.9", "http://a", "http://b", "http://a/")
    assert hosts(found) == ["10.0.0.9", "10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_many_threads_cause_one_look_up(clock: StoppedClock) -> None:
    names = FakeNames(svc=["10.0.0.1", "10.0.0.2"])
    found = targets(clock, names.look_up, "http://svc")
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait()
        found.current()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names.questions) == 1


def _entries(*addresses: tuple[int, str]) -> list[Any]:
    return [(family, socket.SOCK_STREAM, 6, "", (address, 80)) for family, address in addresses]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (_entries((V6, "::1"), (V4, "127.0.0.1")), ["::1"]),
        (_entries((V4, "10.0.0.1"), (V4, "10.0.0.2"), (V6, "fd00::1")), ["10.0.0.1", "10.0.0.2"]),
        (_entries((V6, "fe80::1%eth0")), []),
        ([], []),
    ],
)
def test_a_host_s_addresses_of_two_families_are_not_two_hosts(entries: list[Any], expected: list[str]) -> None:
    assert resolving._addresses(entries) == expected


@pytest.mark.parametrize(("name", "ok"), [("localhost", True), ("name.invalid.", False), ("a..b", False)])
async def test_both_bottoms_ask_the_system_and_neither_blocks_its_caller(
    name: str, ok: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's resolver takes its time here, and has its answers ready: no name server is asked."""

    asked_back = threading.Event()

    def slow(host: str, *_: Any, **__: Any) -> list[Any]:
        asked_back.wait(10)
        if host != "localhost":
            raise UnicodeError("label empty") if ".." in host else socket.gaierror(-2, "not known")
        return _entries((V4, "127.0.0.1"))

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    for look_up in (look_up_in_task, look_up_in_thread):
        told: list[object] = []
        asked_back.clear()
        began = time.monotonic()
        look_up(name, 80, told.append)
        await asyncio.sleep(0)
        assert not told
        asked_back.set()
        while not told:
            assert time.monotonic() - began < 10
            await asyncio.sleep(0.01)
        assert told == [["127.0.0.1"]] if ok else isinstance(told[0], Exception)
