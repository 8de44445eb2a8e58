"""The figures of all processes of one worker, from their files; what the dead left is kept, in one file.

A pool that replaces its processes would otherwise leave a file for each that ever was.
"""

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

from bridge_tasks.observability.exemplars import Noted, noted

_KINDS = ("counter", "histogram")
_THE_DEAD = 0
"""No process has this number."""
MANY = 16
"""Files of dead processes that are left as they are."""

_Bucket = tuple[str, tuple[tuple[str, str], ...]]
"""A histogram and the labels of one of its buckets."""


class ProcessFigures:
    """A collector for `prometheus_client`: all files of a directory, with examples.

    Args:
        directory: where they are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        """Give the sums over all processes, also of those that are dead."""
        with self._lock:
            self._bury()
            written = [str(path) for kind in _KINDS for path in self._written(kind)]
            metrics = list(MultiProcessCollector.merge(written))
        latest: dict[_Bucket, Noted] = {}
        for one in sorted(noted(self._directory), key=lambda one: one.at):
            latest[one.metric, (*sorted(one.labels.items()), ("le", floatToGoString(one.le)))] = one
        for metric in metrics:
            metric.samples = [_with_example(metric, sample, latest) for sample in metric.samples]
        return metrics

    def _written(self, kind: str) -> list[Path]:
        """The files of a kind of metric; one that was made at this moment is still empty."""
        return [path for path in self._directory.glob(f"{kind}_*.db") if path.stat().st_size]

    def _bury(self) -> None:
        """Add up what the dead left. Nobody else reads meanwhile; if we die in it, so does the worker."""
        for kind in _KINDS:
            dead = [path for path in self._written(kind) if not _lives(_number(path))]
            if len(dead) <= MANY:
                continue
            kept = MmapedDict(str(self._directory / f"{kind}_{_THE_DEAD}.db"))
            try:
                for path in dead:
                    for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
                        kept.write_value(key, kept.read_value(key)[0] + value, 0.0)
                    path.unlink()
            finally:
                kept.close()
        gone = [path for path in self._directory.glob("exemplars_*.jsonl") if not _lives(_number(path))]
        for path in sorted(gone, key=lambda path: path.stat().st_mtime)[:-MANY]:
            path.unlink()


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def _lives(number: int) -> bool:
    if number == _THE_DEAD:
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _with_example(metric: Metric, sample: Sample, latest: Mapping[_Bucket, Noted]) -> Sample:
    if not sample.name.endswith("_bucket"):
        return sample
    others = sorted((name, value) for name, value in sample.labels.items() if name != "le")
    one = latest.get((metric.name, (*others, ("le", sample.labels["le"]))))
    if one is None:
        return sample
    return sample._replace(exemplar=Exemplar({"correlation_id": one.correlation_id}, one.value, one.at))
