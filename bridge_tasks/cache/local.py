"""Answers kept in this process: correct, fast, and unknown to every other process.

It is the cache of a client on its own, and what `RedisCache` falls back on. The lock is held for work on
dictionaries only.
"""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from random import random

from bridge_tasks.cache.entry import CacheEntry
from bridge_tasks.cache.port import CacheStats, Found, Kept, Question
from bridge_tasks.resilience.policy.caching import (
    EVERYTHING,
    Age,
    CacheRules,
    Lease,
    Verdict,
    decide,
    early_draw,
    judge,
    voided_at,
)

DEFAULT_MAX_ENTRIES = 1000
DEFAULT_EVICTION_RATIO = 0.2
"""Both from client-guide.md, "Caching Strategy"."""

_MOST_MARKS = 128
_MANY_LEASES = 256


@dataclass(frozen=True, slots=True)
class _Held:
    """A lease, or (without a token) the pause after a failure."""

    token: str | None
    granted: float
    ends: float


@dataclass(frozen=True, slots=True)
class _Answer:
    kept: Kept
    born: float
    trusted_until: float = -inf


class LocalCache:
    """A `Cache` in memory: bounded, dropping the least recently used share when it is full.

    Args:
        max_entries: size bound; may be changed.
        eviction_ratio: share dropped at once when the bound is passed; at least one entry.
        rules: how answers age.
        clock: seconds, monotonic.
        chance: a number drawn from [0, 1), for early refreshes.
    """

    def __init__(
        self,
        max_entries: int = DEFAULT_MAX_ENTRIES,
        eviction_ratio: float = DEFAULT_EVICTION_RATIO,
        *,
        rules: CacheRules | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random,
    ) -> None:
        self.max_entries = max_entries
        self.eviction_ratio = eviction_ratio
        self._rules = rules or CacheRules()
        self._clock = clock
        self._chance = chance
        self._entries: dict[str, CacheEntry[_Answer]] = {}  # in order of last access
        self._leases: dict[str, _Held] = {}
        self._marks: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    async def look(self, question: Question, *, waiting: bool = False) -> Found:
        """Look a question up, and get the lease on it where the verdict is FILL."""
        now = self._clock()
        draw = early_draw(self._rules.early_refresh, self._chance())
        with self._lock:
            kept = self._find(question, now)
            age = judge(kept.life, kept.age, draw) if kept else Age.GONE
            verdict = decide(age, self._lease_state(question.key, now), waiting=waiting)
            lease = self._grant(question.key, now) if verdict is Verdict.FILL else None
            if not waiting:
                self._count(age, verdict)
        return Found(verdict, age, kept, lease)

    async def keep(self, question: Question, kept: Kept, lease: str | None) -> bool:
        """Keep an answer; hand the lease back."""
        if len(kept.packed) > self._rules.max_bytes:
            await self.give_up(question, lease, failed=False)
            return False
        with self._lock:
            now = self._clock()
            held = self._release(question.key, lease)
            born = min(now - kept.age, held.granted if held else now)
            before = self._entries.get(question.key)
            if self._voided(question, born) or (before and before.data.born > born):
                self._counts["late"] += 1
                return False
            self._counts["fills"] += 1
            self._put(question, _Answer(kept, born))
            return True

    async def give_up(self, question: Question, lease: str | None, *, failed: bool) -> None:
        """Hand the lease back without an answer."""
        with self._lock:
            if self._release(question.key, lease) and failed:
                self._counts["failures"] += 1
                now = self._clock()
                self._leases[question.key] = _Held(None, now, now + self._rules.pause_after_failure)

    async def drop(self, question: Question) -> None:
        """Remove what is kept: it could not be read."""
        with self._lock:
            self._counts["dropped"] += self._entries.pop(question.key, None) is not None

    async def void(self, mark: str) -> bool:
        """Make void whatever a mark meets."""
        with self._lock:
            if mark == EVERYTHING:
                self._entries.clear()
                self._counts.clear()
                self._marks.clear()
            elif len(self._marks) >= _MOST_MARKS and mark not in self._marks:
                self._marks.clear()
                mark = EVERYTHING
            self._marks[mark] = self._clock()
        return True

    async def stats(self) -> CacheStats:
        """Return how this process's cache does."""
        with self._lock:
            return CacheStats(False, len(self._entries), self.max_entries, **self._counts)

    async def close(self) -> None:
        """Have nothing to tell."""

    def mirror(self, question: Question, kept: Kept, seconds: float) -> None:
        """Hold a copy of what the shared cache has, to be trusted for `seconds`."""
        with self._lock:
            now = self._clock()
            if not self._voided(question, now - kept.age):
                self._put(question, _Answer(kept, now - kept.age, now + seconds))

    def trusted(self, question: Question) -> Kept | None:
        """Return a fresh copy that may be served without asking the shared cache."""
        entry = self._entries.get(question.key)  # no lock: one look at a dictionary
        now = self._clock()
        if entry is None or now > entry.data.trusted_until:
            return None
        with self._lock:
            kept = self._find(question, now)
        return kept if kept and not kept.stale else None

    def forget(self) -> None:
        """Drop every entry, but keep the leases and the counts."""
        with self._lock:
            self._entries.clear()

    def _find(self, question: Question, now: float) -> Kept | None:
        entry = self._entries.pop(question.key, None)
        if entry is None:
            return None
        answer = entry.data
        if self._voided(question, answer.born):
            self._counts["void"] += 1
            return None
        age = now - answer.born
        if age > answer.kept.life.kept:
            return None
        self._entries[question.key] = entry
        return replace(entry.access().kept, age=age)

    def _voided(self, question: Question, born: float) -> bool:
        return bool(self._marks) and voided_at(self._marks, question.subject, question.tags) >= born

    def _put(self, question: Question, answer: _Answer) -> None:
        self._entries.pop(question.key, None)
        self._entries[question.key] = CacheEntry(answer, answer.kept.life.kept, clock=self._clock)
        if len(self._entries) > self.max_entries:
            self._evict()

    def _evict(self) -> None:
        size = len(self._entries)
        share = max(1, int(size * self.eviction_ratio), size - self.max_entries)
        for key in list(self._entries)[:share]:
            del self._entries[key]
        self._counts["evicted"] += share

    def _lease_state(self, key: str, now: float) -> Lease:
        held = self._leases.get(key)
        if held is None or held.ends <= now:
            return Lease.FREE
        return Lease.HELD if held.token else Lease.FAILED

    def _grant(self, key: str, now: float) -> str:
        if len(self._leases) > _MANY_LEASES:
            self._leases = {name: held for name, held in self._leases.items() if held.ends > now}
        token = secrets.token_hex(8)
        self._leases[key] = _Held(token, now, now + self._rules.lease)
        return token

    def _release(self, key: str, lease: str | None) -> _Held | None:
        """Take the lease back; None for one that is somebody else's by now."""
        held = self._leases.get(key)
        if lease is None or held is None or held.token != lease:
            return None
        return self._leases.pop(key)

    def _count(self, age: Age, verdict: Verdict) -> None:
        if age <= Age.EARLY:
            self._counts["hits"] += 1
        elif age is Age.STALE or verdict is Verdict.SERVE:
            self._counts["stale"] += 1
        else:
            self._counts["misses"] += 1
            self._counts["waits"] += verdict is Verdict.WAIT


class NullCache:
    """A `Cache` that keeps nothing: caching switched off."""

    def __len__(self) -> int:
        return 0

    async def look(self, question: Question, *, waiting: bool = False) -> Found:
        """Know nothing, and let everybody ask."""
        del question, waiting
        return Found(Verdict.FILL, Age.GONE)

    async def keep(self, question: Question, kept: Kept, lease: str | None) -> bool:
        """Keep nothing."""
        del question, kept, lease
        return False

    async def give_up(self, question: Question, lease: str | None, *, failed: bool) -> None:
        """Have nothing to hand back."""

    async def drop(self, question: Question) -> None:
        """Have nothing to remove."""

    async def void(self, mark: str) -> bool:
        """Have nothing to make void."""
        del mark
        return True

    async def stats(self) -> CacheStats:
        """Have nothing to tell."""
        return CacheStats(shared=False, size=0, max_size=0)

    async def close(self) -> None:
        """Have nothing to tell."""
