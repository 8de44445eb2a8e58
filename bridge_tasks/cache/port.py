"""The port: how answers are looked up, kept and made void, wherever that is.

Answers travel as JSON bytes: what a caller does to a result never reaches the cache. Methods are coroutines
because the cache may be far away; on the blocking bottom they never suspend. None raises because a store is away.
"""

from dataclasses import dataclass, field
from typing import Protocol

from bridge_tasks.resilience.policy.caching import Age, Life, Verdict


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        key: its name, from `cache_key`.
        subject: what it is about, for making void by prefix.
        tags: what else its answers can be made void by.
    """

    key: str
    subject: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer in the cache; `packed` is JSON, `age` is in seconds. A refusal is an error that was kept."""

    packed: bytes = field(repr=False)
    age: float
    life: Life
    refusal: bool = False

    @property
    def stale(self) -> bool:
        """Whether its time is over."""
        return self.age > self.life.fresh


@dataclass(frozen=True, slots=True)
class Found:
    """What a look brought.

    Attributes:
        verdict: what to do.
        age: how old what is kept is.
        kept: the answer, which may be too old for more than an emergency.
        lease: the right to ask, to hand back by `keep` or `give_up`.
    """

    verdict: Verdict
    age: Age
    kept: Kept | None = None
    lease: str | None = None

    @property
    def usable(self) -> bool:
        """Whether the cache had an answer that is served as a matter of course."""
        return self.age <= Age.STALE


@dataclass(frozen=True, slots=True)
class CacheStats:
    """How a cache does, over everybody who shares it, since it was last cleared.

    Attributes:
        shared: whether the figures are the fleet's, or only this process's.
        size: answers kept.
        max_size: how many there may be.
        hits: answered with something fresh; `near` of them without asking the shared cache.
        stale: answered with something past its time.
        misses: looked up in vain.
        waits: misses that waited for somebody else's question instead of asking.
        fills: answers kept.
        late: answers not kept because they were void, or overtaken, when they came.
        failures: questions that the service could not answer.
        evicted: answers dropped to make room.
        void: answers dropped because they had been made void.
        dropped: entries dropped because they could not be read.
    """

    shared: bool
    size: int
    max_size: int
    hits: int = 0
    near: int = 0
    stale: int = 0
    misses: int = 0
    waits: int = 0
    fills: int = 0
    late: int = 0
    failures: int = 0
    evicted: int = 0
    void: int = 0
    dropped: int = 0

    @property
    def hit_rate(self) -> float:
        """Answers from the cache per look, 0..1."""
        answered = self.hits + self.stale
        return answered / (answered + self.misses) if answered + self.misses else 0.0


class Cache(Protocol):
    """A store of answers. Safe under threads and tasks."""

    async def look(self, question: Question, *, waiting: bool = False) -> Found:
        """Look a question up, and get the lease on it where the verdict is FILL.

        Args:
            question: what is asked.
            waiting: the caller has looked before, and was told to wait.
        """
        ...

    async def keep(self, question: Question, kept: Kept, lease: str | None) -> bool:
        """Keep an answer that was asked for `kept.age` seconds ago; hand the lease back. False: not kept."""
        ...

    async def give_up(self, question: Question, lease: str | None, *, failed: bool) -> None:
        """Hand the lease back without an answer; `failed` keeps others from trying at once."""
        ...

    async def drop(self, question: Question) -> None:
        """Remove what is kept: it could not be read."""
        ...

    async def void(self, mark: str) -> bool:
        """Make void whatever a mark (`policy.caching`) meets, also what is being asked for now.

        Returns:
            Whether everybody who shares the cache is told.
        """
        ...

    async def stats(self) -> CacheStats:
        """Return how the cache does."""
        ...

    async def close(self) -> None:
        """Tell what was counted here only."""
        ...

    def __len__(self) -> int: ...
