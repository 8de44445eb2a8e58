"""The rules of the result cache: (an entry's life, its age, who is asking already) -> what the caller does.

    FRESH, EARLY ──(ttl)──> STALE ──(stale_while_revalidate)──> RESERVE ──(stale_if_error)──> gone
    served                  served while one caller asks        served only if the service fails

Rule 1: at most one caller holds the lease on a question; the others are served, or wait. Rule 2: an answer is as
old as the moment it was asked for; what was made void since is never kept nor served. Seconds throughout.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import inf, log


@dataclass(frozen=True)
class CacheRules:
    """How answers age, and who asks anew. How long they are fresh, and how many are kept, is the client's to say.

    Attributes:
        stale_while_revalidate: seconds after its time during which an answer is served while one caller asks anew.
        stale_if_error: seconds after its time during which it stands in for a service that fails.
        early_refresh: how eagerly one caller asks anew before the time is over; 0 never, 1 as XFetch does.
        negative_ttl: seconds that a "there is no such thing" is kept. 0 keeps none.
        lease: seconds for which one caller may keep the others from asking; what its death costs them.
        pause_after_failure: seconds after a failed refresh during which nobody tries another.
        near_entries: answers that a process keeps to itself while the shared cache is well.
        near_ttl: seconds that it trusts them without asking the shared cache.
        compress_from: bytes from which an answer is compressed.
        max_bytes: the largest answer kept, as JSON; also the most that decompressing may yield.
        version: what the keys are named after; another one starts an empty cache beside the old.
    """

    stale_while_revalidate: float = 60.0
    stale_if_error: float = 3600.0
    early_refresh: float = 1.0
    negative_ttl: float = 10.0
    lease: float = 5.0
    pause_after_failure: float = 5.0
    near_entries: int = 64
    near_ttl: float = 2.0
    compress_from: int = 4096
    max_bytes: int = 1024 * 1024
    version: str = "1"

    def __post_init__(self) -> None:
        spans = ("stale_while_revalidate", "stale_if_error", "negative_ttl", "pause_after_failure", "near_ttl")
        for name in spans:
            if not 0 <= getattr(self, name) <= LONGEST:
                raise ValueError(f"{name} must be between 0 and {LONGEST:.0f} seconds")
        if not 0 < self.lease <= LONGEST_LEASE:
            raise ValueError(f"lease must be above 0 and at most {LONGEST_LEASE:.0f} seconds")
        if not 0 <= self.early_refresh <= 100:  # noqa: PLR2004 - beyond it nothing would ever be fresh
            raise ValueError("early_refresh must be between 0 and 100")
        if min(self.near_entries, self.compress_from) < 0 or self.max_bytes < 1:
            raise ValueError("near_entries and compress_from must not be negative, and max_bytes at least 1")
        if not (self.version.isascii() and self.version.isalnum()):
            raise ValueError("version must be letters and digits")

    def life(self, ttl: float) -> "Life":
        """Return the life of an answer that is fresh for `ttl` seconds."""
        kept = max(self.stale_while_revalidate, self.stale_if_error)
        return Life(ttl, ttl + self.stale_while_revalidate, ttl + kept)

    @property
    def refusal_life(self) -> "Life":
        """The life of a refusal: never served when its time is over."""
        return Life(self.negative_ttl, self.negative_ttl, self.negative_ttl)


LONGEST = 86_400.0
LONGEST_LEASE = 300.0


@dataclass(frozen=True, slots=True)
class Life:
    """Ages in seconds up to which an answer is fresh, usable, and kept at all; and what it cost to get."""

    fresh: float
    usable: float
    kept: float
    cost: float = 0.0


class Age(IntEnum):
    """How old an answer is, for the one who looks at it. EARLY is fresh, and due for this caller."""

    FRESH = 0
    EARLY = 1
    STALE = 2
    RESERVE = 3
    GONE = 4


class Lease(IntEnum):
    """Whether somebody asks the service already. FAILED: somebody did, a moment ago, in vain."""

    FREE = 0
    HELD = 1
    FAILED = 2


class Verdict(IntEnum):
    """What the caller does: SERVE what is kept, FILL (ask; the lease is its own), WAIT, or give up with FAILED."""

    SERVE = 0
    FILL = 1
    WAIT = 2
    FAILED = 3


def judge(life: Life, age: float, draw: float) -> Age:
    """Say how old an answer is. `draw` comes from `early_draw`."""
    if age <= life.fresh:
        return Age.EARLY if age + life.cost * draw > life.fresh else Age.FRESH
    if age <= life.usable:
        return Age.STALE
    return Age.RESERVE if age <= life.kept else Age.GONE


def decide(age: Age, lease: Lease, *, waiting: bool) -> Verdict:
    """Say what a caller does. Only one who waited for another's try shares in its failure."""
    if age is Age.FRESH:
        return Verdict.SERVE
    if age in (Age.EARLY, Age.STALE):
        return Verdict.FILL if lease is Lease.FREE else Verdict.SERVE
    if lease is Lease.HELD:
        return Verdict.WAIT
    if lease is Lease.FAILED and age is Age.RESERVE:
        return Verdict.SERVE
    return Verdict.FAILED if lease is Lease.FAILED and waiting else Verdict.FILL


def early_draw(eagerness: float, chance: float) -> float:
    """Turn a number from [0, 1) into XFetch's draw: how many costs ahead of time this caller asks anew."""
    return -log(1.0 - chance) * eagerness


EVERYTHING = "*"


def mark_of_tag(tag: str) -> str:
    """Name what makes void every answer with a tag."""
    return f"={tag}"


def mark_of_prefix(prefix: str) -> str:
    """Name what makes void every answer about something that begins with `prefix`."""
    return f"^{prefix}"


def voided_at(marks: Mapping[str, float], subject: str, tags: Collection[str]) -> float:
    """Return when a question's answers were last made void; minus infinity if never."""
    return max((at for mark, at in marks.items() if _meets(mark, subject, tags)), default=-inf)


def _meets(mark: str, subject: str, tags: Collection[str]) -> bool:
    kind, text = mark[0], mark[1:]
    return kind == "*" or (kind == "=" and text in tags) or (kind == "^" and subject.startswith(text))
