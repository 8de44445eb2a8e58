"""Answers kept in Redis, shared by every process; while Redis is away, in this process.

One script per look: it reads the answer, counts, and grants the lease in the same step, by the server's clock.
A few answers are held here as well, for seconds; a reply that names another generation drops them. Nothing that
cannot be read is served, and no trouble of the store reaches a caller.
"""

import re
import secrets
import time
from collections.abc import Callable
from random import random
from typing import Any

from bridge_tasks import events
from bridge_tasks.cache.local import DEFAULT_EVICTION_RATIO, DEFAULT_MAX_ENTRIES, LocalCache
from bridge_tasks.cache.port import CacheStats, Found, Kept, Question
from bridge_tasks.cache.wire import decode, encode
from bridge_tasks.resilience.policy.caching import (
    EVERYTHING,
    LONGEST_LEASE,
    Age,
    CacheRules,
    Life,
    Verdict,
    early_draw,
)
from bridge_tasks.resilience.state.shared_redis import Script, SharedRedis, StoreUnavailable

_SUBJECT_BYTES = 256
"""Of a subject, what a prefix is compared with. A longer prefix is cut: it then meets more, never less."""

_SERVER_TIME = ""
_COUNTS = ("hits", "near", "stale", "misses", "waits", "fills", "late", "failures", "evicted", "void", "dropped")


class RedisCache:
    """A `Cache` for the whole fleet.

    Args:
        shared: where Redis is, through a client that leaves replies as bytes.
        name: the cache's name: letters, digits, dashes.
        max_entries: size bound, fleet-wide.
        eviction_ratio: share dropped at once when the bound is passed; at least one entry.
        rules: how answers age.
        clock: seconds, monotonic: for what is held here. Shared entries age by Redis's clock.
        chance: a number drawn from [0, 1), for early refreshes.
        server_time: microseconds to use instead of Redis's clock.
    """

    def __init__(
        self,
        shared: SharedRedis,
        name: str,
        max_entries: int = DEFAULT_MAX_ENTRIES,
        eviction_ratio: float = DEFAULT_EVICTION_RATIO,
        *,
        rules: CacheRules | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random,
        server_time: Callable[[], int | str] = lambda: _SERVER_TIME,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9-]{1,64}", name):
            raise ValueError("a cache's name is made of small letters, digits and dashes")
        self.max_entries = max_entries
        self.eviction_ratio = eviction_ratio
        self._rules = rules or CacheRules()
        self._shared = shared
        self._clock = clock
        self._chance = chance
        self._server_time = server_time
        self._script = Script("cache")
        tag = f"{{{name}.{self._rules.version}}}"
        self._keys = tuple(
            f"bridge:v1:{kind}:{tag}" for kind in ("cache", "cache-used", "cache-stats", "cache-voids")
        )
        self._lease_prefix = f"bridge:v1:cache-lease:{tag}:"
        self._local = LocalCache(max_entries, eviction_ratio, rules=self._rules, clock=clock, chance=chance)
        self._generation: int | None = None
        self._size = 0
        self._near_hits = 0  # threads may lose one of these: it is a statistic

    def __len__(self) -> int:
        """Return the size that was last heard of."""
        return self._size if self._shared.available else len(self._local)

    async def look(self, question: Question, *, waiting: bool = False) -> Found:
        """Look a question up: here, in Redis, or (Redis being away) here."""
        near = self._local.trusted(question)
        if near is not None:
            self._near_hits += not waiting
            return Found(Verdict.SERVE, Age.FRESH, near)
        near_hits, self._near_hits = self._near_hits, 0
        token = secrets.token_hex(8)
        draw = early_draw(self._rules.early_refresh, self._chance())
        try:
            reply = await self._run(
                "look",
                question,
                token,
                _microseconds(self._rules.lease),
                _microseconds(LONGEST_LEASE),
                _microseconds(draw),
                int(waiting),
                near_hits,
                *_described(question),
            )
        except StoreUnavailable:
            self._near_hits += near_hits
            return await self._alone().look(question, waiting=waiting)
        verdict, age, generation, self._size, unreadable, *stored = reply
        self._heard(generation)
        if unreadable:
            events.emit(events.CacheEntryDropped("its header could not be read"))
        kept = self._read(question, stored)
        if stored and kept is None:
            await self.drop(question)
            if verdict == Verdict.SERVE:
                return await self.look(question, waiting=waiting)
            age = Age.GONE
        if kept is not None:
            self._hold(question, kept)
        return Found(Verdict(verdict), Age(age), kept, token if verdict == Verdict.FILL else None)

    async def keep(self, question: Question, kept: Kept, lease: str | None) -> bool:
        """Keep an answer, in Redis and here; hand the lease back."""
        if len(kept.packed) > self._rules.max_bytes:
            await self.give_up(question, lease, failed=False)
            return False
        flags, payload = encode(
            question.key, kept.packed, refusal=kept.refusal, compress_from=self._rules.compress_from
        )
        lives = (_microseconds(seconds) for seconds in (kept.life.fresh, kept.life.usable, kept.life.kept))
        try:
            done, generation, self._size, _ = await self._run(
                "keep",
                question,
                lease or "",
                _microseconds(kept.age),
                flags,
                *lives,
                payload,
                self.max_entries,
                round(self.eviction_ratio * 1_000_000),
                *_described(question),
            )
        except StoreUnavailable:
            return await self._alone().keep(question, kept, lease)
        self._heard(generation)
        if done:
            self._hold(question, kept)
        return bool(done)

    async def give_up(self, question: Question, lease: str | None, *, failed: bool) -> None:
        """Hand the lease back without an answer."""
        if lease is None:
            return
        pause = _microseconds(self._rules.pause_after_failure) if failed else 0
        try:
            await self._run("give_up", question, lease, pause)
        except StoreUnavailable:
            await self._alone().give_up(question, lease, failed=failed)

    async def drop(self, question: Question) -> None:
        """Remove what is kept: it could not be read."""
        events.emit(events.CacheEntryDropped("it could not be read"))
        await self._local.drop(question)
        try:
            await self._run("drop", question)
        except StoreUnavailable:
            return

    async def void(self, mark: str) -> bool:
        """Make void whatever a mark meets; False if only this process could be told."""
        await self._local.void(mark)
        events.emit(events.CacheVoided(mark))
        if mark == EVERYTHING:
            self._near_hits = self._size = 0
        try:
            self._generation = await self._run("void", Question(""), _sent(mark))
        except StoreUnavailable:
            return False
        return True

    async def stats(self) -> CacheStats:
        """Return the fleet's figures; this process's while Redis is away."""
        await self.close()
        try:
            flat = await self._shared.command("HMGET", self._keys[2], *_COUNTS)
            self._size = int(await self._shared.command("HLEN", self._keys[0]))
        except StoreUnavailable:
            return await self._local.stats()
        counts = {name: int(value or 0) for name, value in zip(_COUNTS, flat, strict=True)}
        counts["hits"] += counts["near"]
        return CacheStats(shared=True, size=self._size, max_size=self.max_entries, **counts)

    async def close(self) -> None:
        """Tell Redis of the hits that it did not see."""
        near_hits, self._near_hits = self._near_hits, 0
        if near_hits:
            try:
                await self._run("count", Question(""), near_hits)
            except StoreUnavailable:
                self._near_hits += near_hits

    async def _run(self, command: str, question: Question, *arguments: Any) -> Any:
        keys = (*self._keys, self._lease_prefix + question.key)
        return await self._shared.run(self._script, keys, (command, self._server_time(), question.key, *arguments))

    def _alone(self) -> LocalCache:
        """Return what stands in for Redis: now it may hold as much as that."""
        self._local.max_entries = self.max_entries
        return self._local

    def _heard(self, generation: int) -> None:
        """Redis is there: hold little here, and nothing from before something was made void."""
        self._local.max_entries = self._rules.near_entries
        if self._generation is not None and generation != self._generation:
            self._local.forget()
        self._generation = generation

    def _hold(self, question: Question, kept: Kept) -> None:
        if self._rules.near_entries and self._rules.near_ttl and not kept.stale:
            self._local.mirror(question, kept, self._rules.near_ttl)

    def _read(self, question: Question, stored: list[Any]) -> Kept | None:
        if not stored:
            return None
        *times, flags, payload = stored
        decoded = decode(question.key, flags.decode("ascii", "replace"), payload, self._rules.max_bytes)
        if decoded is None:
            return None
        age, fresh, usable, kept, cost = (time_ / 1_000_000 for time_ in times)
        packed, refusal = decoded
        return Kept(packed, age, Life(fresh, usable, kept, cost), refusal)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _described(question: Question) -> tuple[bytes, ...]:
    subject = question.subject.encode(errors="replace")[:_SUBJECT_BYTES]
    return (subject, *(tag.encode(errors="replace") for tag in question.tags))


def _sent(mark: str) -> bytes:
    encoded = mark.encode(errors="replace")
    return encoded[: 1 + _SUBJECT_BYTES] if mark.startswith("^") else encoded
