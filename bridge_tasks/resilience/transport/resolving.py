"""Where a service's replicas are: the URLs given, and the addresses that a name among them stands for.

Names are looked up beside the calls, never in their way: until the first look-up has ended, and where it fails,
what was known before holds (at first the name itself, left to the system). A name with one address stays a name.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Any, NamedTuple

import httpx

from bridge_tasks import events
from bridge_tasks.resilience.transport.deadline import Clock

Told = Callable[[Sequence[str] | Exception], None]

LookUp = Callable[[str, int, Told], None]
"""Begin to look a name and port up; it ends by telling the addresses, or why there are none."""

_PORTS = {"http": 80, "https": 443}
_NOT_FOUND = (OSError, UnicodeError)
"""What a resolver raises: it is the second where a name cannot be one."""


class Target(NamedTuple):
    """One replica: where a connection goes, and under which name it is spoken to.

    A tuple, because it is compared and looked up a few times in each call.

    Attributes:
        scheme: http or https.
        host: a name, or an address that a name stands for.
        port: None where it is the scheme's own.
        authority: the Host header.
        name: what TLS asks for where `host` is not it; else None.
    """

    scheme: str
    host: str
    port: int | None
    authority: str
    name: str | None = None

    def __str__(self) -> str:
        """What it is called in logs."""
        return httpx.URL(scheme=self.scheme, host=self.host, port=self.port).netloc.decode("ascii")


class Targets:
    """The replicas behind `urls`, of which scheme, host and port count. Thread-safe.

    Args:
        urls: as configured.
        look_up: how names are looked up; None: not at all.
        ttl: seconds between look-ups; 0: not at all.
        clock: seconds, monotonic.
    """

    def __init__(self, urls: Sequence[httpx.URL], *, look_up: LookUp | None, ttl: float, clock: Clock) -> None:
        self._look_up = look_up
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[httpx.URL, tuple[Target, ...]] = {url: (_itself(url),) for url in urls}
        self._names = tuple(url for url in self._found if _is_name(url)) if look_up and ttl else ()
        self._due = clock() if self._names else float("inf")
        self._all = _distinct(self._found.values())

    @property
    def settled(self) -> bool:
        """Whether they never change."""
        return not self._names

    def current(self) -> tuple[Target, ...]:
        """Return the replicas as known now (the same tuple until they change); begin a look-up that is due."""
        if self._clock() >= self._due:
            self._refresh()
        return self._all

    def _refresh(self) -> None:
        with self._lock:
            now = self._clock()
            due, self._due = now >= self._due, now + self._ttl
        if not due or self._look_up is None:
            return
        for url in self._names:
            self._look_up(url.host, url.port or _PORTS[url.scheme], partial(self._tell, url))

    def _tell(self, url: httpx.URL, found: Sequence[str] | Exception) -> None:
        if isinstance(found, Exception) or not found:
            cause = type(found).__name__ if isinstance(found, Exception) else "no address"
            events.emit(events.NameLookupFailed(url.host, cause))
            return
        # In order: a name server that rotates its answers has not changed them.
        targets = tuple(_at(url, address) for address in sorted(set(found)))
        if len(targets) == 1:
            targets = (_itself(url),)
        with self._lock:
            changed = targets != self._found[url]
            if changed:
                self._found[url] = targets
                self._all = _distinct(self._found.values())
        if changed:
            events.emit(events.ReplicasChanged(url.host, len(targets)))


def look_up_in_task(name: str, port: int, tell: Told) -> None:
    """Be the `LookUp` of asyncio: the loop's own resolver, in a task."""
    task = asyncio.create_task(_ask_loop(name, port, tell))
    _tasks.add(task)  # the loop itself holds tasks weakly
    task.add_done_callback(_tasks.discard)


def look_up_in_thread(name: str, port: int, tell: Told) -> None:
    """Be the `LookUp` of a bottom that blocks: a resolver may take many seconds, and no call is to wait for it."""
    threading.Thread(target=_ask_system, args=(name, port, tell), name="bridge-look-up", daemon=True).start()


_tasks: set[asyncio.Task[None]] = set()


async def _ask_loop(name: str, port: int, tell: Told) -> None:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except _NOT_FOUND as error:
        tell(error)
    else:
        tell(_addresses(found))


def _ask_system(name: str, port: int, tell: Told) -> None:
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except _NOT_FOUND as error:
        tell(error)
    else:
        tell(_addresses(found))


def _addresses(found: Sequence[tuple[Any, ...]]) -> list[str]:
    """Take the family that the system prefers (its first): a host's IPv4 and IPv6 addresses are one host."""
    return [entry[4][0] for entry in found if entry[0] == found[0][0] and "%" not in entry[4][0]]


def _itself(url: httpx.URL) -> Target:
    return Target(url.scheme, url.host, url.port, url.netloc.decode("ascii"))


def _at(url: httpx.URL, address: str) -> Target:
    return Target(url.scheme, address, url.port, url.netloc.decode("ascii"), url.host)


def _is_name(url: httpx.URL) -> bool:
    if url.scheme not in _PORTS or not url.host:
        return False  # no call can be made there, and the error is for the call to raise
    try:
        ip_address(url.host)
    except ValueError:
        return True
    return False


def _distinct(found: Iterable[Sequence[Target]]) -> tuple[Target, ...]:
    """Two names for one address are one replica: the pool could not tell their connections apart either."""
    places: dict[object, Target] = {}
    for targets in found:
        for target in targets:
            places.setdefault((target.scheme, target.host, target.port), target)
    return tuple(places.values())
