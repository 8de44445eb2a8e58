"""Which job was that? Of each bucket of a histogram, one that fell into it lately, with its correlation id.

prometheus_client keeps no exemplars where several processes count. So each process has a file of its own with one
line for each bucket, written at most once a second: it costs a job nothing that could be measured.
"""

import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

SLOT = 512
"""Bytes of a line. What does not fit is left out."""
LONGEST_ID = 100
"""OpenMetrics bears 128 characters in all."""
_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Noted:
    """One example.

    Attributes:
        metric: the histogram.
        labels: which of its series.
        le: the upper bound of the bucket that it fell into.
        correlation_id: whose it is.
        value: what was measured.
        at: when, in seconds since the epoch.
    """

    metric: str
    labels: Mapping[str, str]
    le: float
    correlation_id: str
    value: float
    at: float


class ExemplarFile:
    """The examples of one histogram from this process; a child that is forked goes on in a file of its own.

    Args:
        directory: where the files are.
        metric: the histogram.
        buckets: its upper bounds, without infinity.
    """

    def __init__(self, directory: str, metric: str, buckets: Sequence[float]) -> None:
        self._directory = directory
        self._metric = metric
        self._buckets = tuple(buckets)
        self._pid = 0
        self._file = -1
        self._slots: dict[tuple[tuple[str, ...], int], tuple[int, float]] = {}

    def note(
        self, labels: Sequence[str], values: tuple[str, ...], measured: float, correlation_id: str | None
    ) -> None:
        """Keep an example, unless there is one of this second."""
        if correlation_id is None or len(correlation_id) > LONGEST_ID:
            return
        if self._pid != os.getpid():
            self._open()
        now = time.time()
        bucket = bisect_left(self._buckets, measured)
        key = (values, bucket)
        slot, noted = self._slots.get(key, (len(self._slots), 0.0))
        if now - noted < _PAUSE:
            return
        le = self._buckets[bucket] if bucket < len(self._buckets) else None
        line = orjson.dumps(
            [self._metric, dict(zip(labels, values, strict=True)), le, correlation_id, measured, now]
        )
        if len(line) < SLOT:
            os.pwrite(self._file, line.ljust(SLOT - 1) + b"\n", slot * SLOT)
            self._slots[key] = (slot, now)

    def close(self) -> None:
        """Close the file; it stays."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._pid, self._slots = -1, 0, {}

    def _open(self) -> None:
        self.close()  # what was inherited
        self._pid = os.getpid()
        path = Path(self._directory) / f"exemplars_{self._pid}.jsonl"
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)


def noted(directory: Path) -> Iterator[Noted]:
    """Give the examples of all processes; a line that is being written at this moment is left out."""
    for path in directory.glob("exemplars_*.jsonl"):
        for line in path.read_bytes().splitlines():
            try:
                metric, labels, le, cid, value, at = orjson.loads(line)
            except ValueError:
                continue
            yield Noted(metric, labels, float("inf") if le is None else le, cid, value, at)
