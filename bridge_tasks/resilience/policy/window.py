"""Counts of the last ten seconds, in one bucket per second. Pure; times are whole microseconds."""

from dataclasses import dataclass

SECOND = 1_000_000

Bucket = tuple[int, int, int, int]
"""A second's number, and its calls, failures and slow calls."""


@dataclass(frozen=True, slots=True)
class Window:
    """The seconds in which something happened, oldest first; none older than `SPAN` seconds."""

    SPAN = 10

    buckets: tuple[Bucket, ...] = ()

    def add(self, now: int, calls: int, failures: int, slow: int) -> "Window":
        """Count calls in the current second, and forget what is too old."""
        second = now // SECOND
        if self.buckets and self.buckets[-1][0] == second:
            _, seen, failed, slowed = self.buckets[-1]
            return Window((*self.buckets[:-1], (second, seen + calls, failed + failures, slowed + slow)))
        kept = tuple(bucket for bucket in self.buckets if bucket[0] > second - self.SPAN)
        return Window((*kept, (second, calls, failures, slow)))

    def last(self, seconds: int, now: int) -> tuple[int, int, int]:
        """Return the calls, failures and slow calls of the last `seconds`, the current one included."""
        since = now // SECOND - seconds
        calls = failures = slow = 0
        for second, seen, failed, slowed in self.buckets:
            if second > since:
                calls, failures, slow = calls + seen, failures + failed, slow + slowed
        return calls, failures, slow
