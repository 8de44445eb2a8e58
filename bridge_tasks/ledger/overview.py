"""What is going on, in one look: the oldest jobs that have not ended, the latest that failed, the latest runs.

One round trip however much waits: a few of each are read, and no message is carried here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bridge_tasks.ledger.commands import run, text
from bridge_tasks.ledger.dead import queue_of
from bridge_tasks.ledger.envelope import namespace_in
from bridge_tasks.ledger.records import MICROSECONDS, JobRecord, pairs
from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.resilience.state.shared_redis import RedisCommands, Script

_OVERVIEW = Script("overview", __package__)
_HEAVY = 200_000
"""Bytes of a message that is not worth reading for what a screen shows of it."""


@dataclass(frozen=True, slots=True)
class Told:
    """A record on the screen: itself, the namespace of its work, and who is at it."""

    record: JobRecord
    namespace: str = ""
    worker: str = ""


@dataclass(frozen=True, slots=True)
class LedgerOverview:
    """What was seen.

    Attributes:
        now: Redis's clock, in seconds since the epoch.
        failed_lately: dead letters of the last hour.
        open: by queue, how many jobs have not ended: they wait, are worked on, or wait for another try.
        oldest: some of those, oldest first.
        failures: dead letters, latest first.
        runs: bulk runs, latest first.
    """

    now: float
    failed_lately: int
    open: dict[str, int]
    oldest: tuple[Told, ...]
    failures: tuple[Told, ...]
    runs: tuple[RunProgress, ...]


async def overview(client: RedisCommands, most: int) -> LedgerOverview:
    """Look, and tell at most so many of each."""
    now, lately, lists, open_, dead, runs = await run(client, _OVERVIEW, [], [most, _HEAVY])
    counts: dict[str, int] = {}
    for name, count in zip(lists[::2], lists[1::2], strict=True):
        queue = queue_of(text(name)) or ""
        counts[queue] = counts.get(queue, 0) + int(count)
    records = sorted(map(_told, open_), key=lambda told: told.record.accepted)
    known = [(text(name), pairs(fields)) for name, fields in runs]
    return LedgerOverview(
        now=int(now) / MICROSECONDS,
        failed_lately=int(lately),
        open=counts,
        oldest=tuple(records[:most]),
        failures=tuple(map(_told, dead)),
        runs=tuple(RunProgress.loads(name, fields) for name, fields in known if "accepted" in fields),
    )


def _told(row: Sequence[Any]) -> Told:
    name, flat, arguments = row
    fields = pairs(flat)
    worker = fields.get("worker", "").rpartition(":")[0]
    return Told(JobRecord.loads(text(name), fields), namespace_in(text(arguments)), worker)
