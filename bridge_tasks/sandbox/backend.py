"""What one metadata service works with, whichever dialect it speaks: its stamps, limits, clock and timings.

Speaks no HTTP.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from bridge_tasks.sandbox.envelope import Json, grade
from bridge_tasks.sandbox.stamp_store import StampStore

P = ParamSpec("P")
T = TypeVar("T")

SERVICE = "metadata-stamping"
VERSION = "0.1.0"
PREFIX = "/api/v1/metadata-stamping"
METADATA_VERSION = "0.1"

_WORTH_A_THREAD = 1 << 18
_SLOW_HASH_MILLISECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes beyond which the service answers 413. Defaults: the known service's."""

    content: int = 100 << 20
    upload: int = 500 << 20


@dataclass(slots=True)
class HashTimings:
    """How long the last hashes took, in milliseconds."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    total: int = 0

    def note(self, milliseconds: float) -> None:
        """Count one hash."""
        self.recent.append(milliseconds)
        self.total += 1

    def summary(self) -> Json:
        """Sum up as `/metrics` shows it."""
        if not self.recent:
            return {"status": "no_operations"}
        average = sum(self.recent) / len(self.recent)
        slow = sum(milliseconds >= _SLOW_HASH_MILLISECONDS for milliseconds in self.recent)
        return {
            "total_operations": self.total,
            "average_execution_time_ms": average,
            "min_execution_time_ms": min(self.recent),
            "max_execution_time_ms": max(self.recent),
            "performance_violations": slow,
            "violation_rate": slow / len(self.recent),
            "operations_under_2ms": len(self.recent) - slow,
            "performance_grade": grade(average, 1, _SLOW_HASH_MILLISECONDS),
        }


@dataclass(frozen=True, slots=True)
class Backend:
    """The state behind one application."""

    store: StampStore
    limits: Limits
    heeds_keys: bool = True
    timings: HashTimings = field(default_factory=HashTimings)
    started: float = field(default_factory=time.monotonic)

    def uptime_seconds(self) -> float:
        """Return the seconds since this service was made."""
        return time.monotonic() - self.started


class Stopwatch:
    """Milliseconds since it was made."""

    __slots__ = ("_started",)

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def milliseconds(self) -> float:
        """Return the time so far."""
        return (time.perf_counter() - self._started) * 1000


async def work(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function`, in a thread when `size` (bytes or characters) is worth the trip.

    A small call costs less than handing it over; a large one would hold up every other request.
    """
    if size < _WORTH_A_THREAD:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
