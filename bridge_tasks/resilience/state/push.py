"""Brings transitions to this process as they happen: one daemon thread that listens to Redis.

A convenience: what is missed is noticed within a second, by the snapshots' age. The thread is started when a store
first talks to Redis, in the process that does so, and never raises.
"""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import redis
from redis.client import PubSub

from bridge_tasks.resilience.state.circuit_script import CHANNEL, PUSHED

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
"""Seconds between tries to connect."""

LISTEN_SECONDS = 1.0
"""How long one wait for a message lasts; the connection is pinged between two."""


class Follower(Protocol):
    """Who wants to know of one circuit's transitions; told from the listener's thread."""

    name: str

    def learn(self, numbers: Sequence[int]) -> None:
        """Take in a pushed state, if it is newer than what is known."""
        ...

    def doubt(self) -> None:
        """Know that something may have been missed."""
        ...


class CircuitListener:
    """Passes on what the script publishes. Safe after a fork: the child starts its own thread.

    Args:
        connect: opens a client of its own for the thread.
    """

    def __init__(self, connect: Callable[[], redis.Redis]) -> None:
        self._connect = connect
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stores: weakref.WeakSet[Follower] = weakref.WeakSet()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.listening = threading.Event()

    def follow(self, store: Follower) -> None:
        """Tell `store` from now on, in the process that asks."""
        if self._pid != os.getpid():
            self._begin()
        if self._thread is not None and store in self._stores:
            return
        with self._lock:
            self._stores.add(store)
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name="bridge-circuits", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Stop listening, for good; the thread ends by itself within `LISTEN_SECONDS`."""
        self._stopped.set()

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                with self._connect() as client, client.pubsub() as news:
                    news.subscribe(CHANNEL)
                    failures = 0
                    self._listen(news)
            except (redis.RedisError, OSError, ValueError):
                failures += 1
            self.listening.clear()
            self._doubt_all()
            if failures:
                self._stopped.wait(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures, 8)))

    def _listen(self, news: PubSub) -> None:
        while not self._stopped.is_set():
            message = news.get_message(timeout=LISTEN_SECONDS)
            if message is None:
                continue
            if message["type"] == "subscribe":
                self._doubt_all()  # what happened until now was not heard
                self.listening.set()
            elif message["type"] == "message":
                self._pass_on(message["data"])

    def _pass_on(self, data: bytes | str) -> None:
        text = data.decode() if isinstance(data, bytes) else data
        *numbers, name = text.split(" ")
        with suppress(ValueError):
            told = [int(number) for number in numbers]
            for store in self._followers():
                if store.name == name and len(told) == PUSHED:
                    store.learn(told)

    def _doubt_all(self) -> None:
        for store in self._followers():
            store.doubt()

    def _followers(self) -> list[Follower]:
        with self._lock:
            return list(self._stores)
