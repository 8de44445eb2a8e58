"""What came of all jobs so far, counted by the scripts that bring it about: exact, whoever died meanwhile.

Counters begin with the ledger's Redis and last as long as it does. What it costs to read them does not depend
on how many jobs there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge_tasks.ledger import keys
from bridge_tasks.ledger.commands import run, text
from bridge_tasks.ledger.envelope import PRIORITY_SEPARATOR
from bridge_tasks.ledger.records import MICROSECONDS, pairs
from bridge_tasks.resilience.state.shared_redis import RedisCommands, Script

_FLEET = Script("fleet", __package__)


@dataclass(frozen=True, slots=True)
class OpenTasks:
    """The tasks of one queue that have not ended: how many wait, and how many run."""

    waiting: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """The latest task to which something happened: what it travels with, and when that was (seconds)."""

    correlation_id: str
    at: float


@dataclass(frozen=True, slots=True)
class FleetTotals:
    """What the ledger has counted.

    Attributes:
        totals: how often what happened, by what and to which task (`("succeeded", "bridge.create_stamp")`).
        examples: the latest of some of that.
        queues: what is open, by queue.
        looked: seconds since lost messages were last looked for; None if never.
    """

    totals: Mapping[tuple[str, str], int] = field(default_factory=dict)
    examples: Mapping[tuple[str, str], Example] = field(default_factory=dict)
    queues: Mapping[str, OpenTasks] = field(default_factory=dict)
    looked: float | None = None


async def totals(client: RedisCommands) -> FleetTotals:
    """Read all of it. Redis's errors come out as they are."""
    names = (keys.TOTALS, keys.EXAMPLES, keys.QUEUES, keys.LOOKED)
    now, counted, examples, lists, looked = await run(client, _FLEET, names, ())
    queues: dict[str, OpenTasks] = {}
    for name, still_open, running in lists:
        queue = text(name).partition(PRIORITY_SEPARATOR)[0]
        before = queues.get(queue, OpenTasks())
        queues[queue] = OpenTasks(before.waiting + int(still_open) - int(running), before.running + int(running))
    return FleetTotals(
        {_what(name): int(count) for name, count in pairs(counted).items()},
        {_what(name): _example(told) for name, told in pairs(examples).items()},
        queues,
        (int(now) - int(looked)) / MICROSECONDS if looked else None,
    )


def _what(name: str) -> tuple[str, str]:
    what, _, task = name.partition("|")
    return what, task


def _example(told: str) -> Example:
    at, _, cid = told.partition(" ")
    return Example(cid, int(at) / MICROSECONDS)
