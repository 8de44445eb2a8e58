"""Connections by address: found again, left alone while at work, closed when nobody comes any more."""

import httpcore

from bridge_tasks.resilience.transport.pools import UNUSED_SECONDS, Address, Pools
from tests.stopped_clock import StoppedClock

ONE: Address = (b"http", b"one", 8001)
TWO: Address = (b"http", b"two", 8001)


class Pool(httpcore.ConnectionPool):
    """Remembers that it was closed; a connection of it is at work where that is wished for."""

    def __init__(self) -> None:
        super().__init__(network_backend=httpcore.MockBackend([]))
        self.closed = False
        self.busy = False

    @property
    def connections(self) -> list[httpcore.ConnectionInterface]:
        place = httpcore.Origin(b"http", b"one", 8001)
        return [httpcore.HTTP11Connection(place, httpcore.MockStream([]))] if self.busy else []

    def close(self) -> None:
        self.closed = True


def opened(clock: StoppedClock) -> tuple[Pools, list[Pool]]:
    made: list[Pool] = []

    def connect() -> Pool:
        made.append(Pool())
        return made[-1]

    return Pools(connect, clock), made


def test_an_address_finds_its_own_pool_again(clock: StoppedClock) -> None:
    pools, made = opened(clock)
    assert pools.of(ONE) is pools.of(ONE)
    assert pools.of(TWO) is not pools.of(ONE)
    assert len(made) == 2


def test_an_address_that_has_left_is_closed_within_two_minutes_and_others_stay(clock: StoppedClock) -> None:
    pools, made = opened(clock)
    pools.of(ONE)
    pools.of(TWO)
    for _ in range(2):
        clock.advance(UNUSED_SECONDS)
        pools.of(TWO)
    assert [pool.closed for pool in made] == [True, False]
    assert pools.of(ONE) is made[2]


def test_a_pool_at_work_is_left_alone_however_long_that_takes(clock: StoppedClock) -> None:
    pools, made = opened(clock)
    pools.of(ONE)
    made[0].busy = True
    for _ in range(5):
        clock.advance(UNUSED_SECONDS)
        pools.of(TWO)
    assert not made[0].closed


def test_closing_closes_all(clock: StoppedClock) -> None:
    pools, made = opened(clock)
    pools.of(ONE)
    pools.of(TWO)
    pools.close()
    assert [pool.closed for pool in made] == [True, True]
