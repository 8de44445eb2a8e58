"""The figures of one process, in files that outlive it: prometheus_client's format, which its collector adds up.

Its own metric classes are not used: they take one directory for a whole process, from a variable that must be set
before anybody imports the library, and Celery's command line imports it with Flower. A process that is forked
goes on in files of its own. Not thread-safe: whoever counts holds a lock.
"""

import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter: its name, what it counts, and its labels."""

    name: str
    told: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timed(Counted):
    """A histogram of seconds."""

    buckets: tuple[float, ...] = SHORT


class Figures:
    """What this process counted.

    Args:
        directory: where the files are.
    """

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._pid = 0
        self._counters: Any = None
        self._histograms: Any = None
        self._keys: dict[tuple[str, tuple[Any, ...]], Sequence[str]] = {}

    def count(self, metric: Counted, values: tuple[Any, ...]) -> None:
        """Add one to a counter."""
        self._open()
        keys = self._keys.get((metric.name, values)) or self._make(metric, values, f"{metric.name}_total")
        _add(self._counters, keys[0], 1.0)

    def observe(self, metric: Timed, values: tuple[Any, ...], seconds: float) -> None:
        """Add a value to a histogram."""
        self._open()
        keys = self._keys.get((metric.name, values)) or self._make_histogram(metric, values)
        _add(self._histograms, keys[0], seconds)
        _add(self._histograms, keys[1 + bisect_left(metric.buckets, seconds)], 1.0)

    def close(self) -> None:
        """Close the files; they stay."""
        for file in (self._counters, self._histograms):
            if file is not None:
                file.close()
        self._counters = self._histograms = None
        self._keys.clear()
        self._pid = 0

    def _make(self, metric: Counted, values: tuple[Any, ...], *samples: str) -> Sequence[str]:
        labels = [_text(value) for value in values]
        keys = [mmap_key(metric.name, sample, list(metric.labels), labels, metric.told) for sample in samples]
        self._keys[metric.name, values] = keys
        return keys

    def _make_histogram(self, metric: Timed, values: tuple[Any, ...]) -> Sequence[str]:
        (total,) = self._make(metric, values, f"{metric.name}_sum")
        labels, names = [_text(value) for value in values], [*metric.labels, "le"]
        keys = [total]
        for bound in (*metric.buckets, float("inf")):
            told = [*labels, floatToGoString(bound)]
            keys.append(mmap_key(metric.name, f"{metric.name}_bucket", names, told, metric.told))
        for key in keys:  # all of them: a bucket that nothing fell into is told as well
            self._histograms.read_value(key)
        self._keys[metric.name, values] = keys
        return keys

    def _open(self) -> None:
        if self._pid == os.getpid():
            return
        self.close()  # what was inherited
        self._pid = os.getpid()
        self._counters = MmapedDict(str(self._directory / f"counter_{self._pid}.db"))
        self._histograms = MmapedDict(str(self._directory / f"histogram_{self._pid}.db"))


def _add(file: Any, key: str, amount: float) -> None:
    file.write_value(key, file.read_value(key)[0] + amount, 0.0)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
