"""What the whole fleet's ledger tells, as metrics: the same from whichever worker one asks, and exact.

Names begin with `bridge_fleet_`: of several workers' answers take one (`max`), never the sum.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar
from redis.exceptions import RedisError

from bridge_tasks.bridge import what_to_look_at
from bridge_tasks.driver import BlockingRedis
from bridge_tasks.ledger.fleet import Example, FleetTotals, totals
from bridge_tasks.resilience.policy.breaker import CircuitState
from bridge_tasks.runtime import Runtime
from bridge_tasks.vitals import SystemHealth, look

_ENDS = ("succeeded", "failed", "cancelled")
_LONGEST_ID = 100
"""OpenMetrics bears 128 characters in an exemplar."""


@dataclass(frozen=True, slots=True)
class Tally:
    """A counter of the ledger: its name, what it counts, what the ledger calls it, and whether by task."""

    name: str
    told: str
    what: str
    by_task: bool = True


TALLIES = (
    Tally("bridge_fleet_tasks_accepted", "Tasks whose first message was sent", "accepted"),
    Tally("bridge_fleet_task_runs", "Runs of tasks that began", "begun"),
    Tally("bridge_fleet_task_retries", "Tasks that were put back, to run again later", "retried"),
    Tally("bridge_fleet_messages_requeued", "Lost messages that the reconciler found and put back", "requeued"),
    Tally("bridge_fleet_messages_restored", "Messages of dead workers that were given back", "restored", False),
    Tally("bridge_fleet_dead_letters_replayed", "Dead letters that were sent again", "replayed"),
    Tally("bridge_fleet_dead_letters_dropped", "Dead letters beyond those that are kept", "dropped", False),
)


class FleetFigures:
    """A collector for `prometheus_client`.

    Args:
        runtime: gives the runtime of this process.
    """

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        """Look, and tell; where the ledger cannot be asked, only that."""
        runtime = self._runtime()
        client, where = BlockingRedis(runtime.ledger_redis), what_to_look_at(runtime)
        try:
            counted = runtime.run(totals(client))
            health = runtime.run(look(client, runtime.shared, **where))
        except (RedisError, OSError):
            counted, health = FleetTotals(), SystemHealth(redis=False)
        yield GaugeMetricFamily("bridge_fleet_ledger_up", "Whether the ledger answers", value=float(health.redis))
        if health.redis:
            yield from _totals(counted)
            yield from _queues(counted, health)
            yield from _state(counted, health)
            yield _circuits({where["circuits"][one].name: state for one, state in health.circuits.items()})


def _totals(counted: FleetTotals) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "bridge_fleet_tasks_ended", "Ends of tasks that are on record", labels=("task", "state")
    )
    for (what, task), count in sorted(counted.totals.items()):
        if what in _ENDS:
            _add(ended, {"task": task, "state": what}, count, counted.examples.get((what, task)))
    yield ended
    for tally in TALLIES:
        family = CounterMetricFamily(tally.name, tally.told, labels=("task",) if tally.by_task else ())
        found = [(task, count) for (what, task), count in sorted(counted.totals.items()) if what == tally.what]
        for task, count in found or ([] if tally.by_task else [("", 0)]):
            example = counted.examples.get((tally.what, task))
            _add(family, {"task": task} if tally.by_task else {}, count, example)
        yield family
    files = CounterMetricFamily("bridge_fleet_run_files", "Ends of files in bulk runs", labels=("state",))
    for state in (*_ENDS, "degraded"):
        _add(files, {"state": state}, counted.totals.get(("files", state), 0), None)
    yield files


def _queues(counted: FleetTotals, health: SystemHealth) -> Iterator[Metric]:
    still_open = GaugeMetricFamily(
        "bridge_fleet_tasks_open", "Tasks that have not ended", labels=("queue", "state")
    )
    for queue, tasks in sorted(counted.queues.items()):
        still_open.add_metric((queue, "waiting"), tasks.waiting)
        still_open.add_metric((queue, "running"), tasks.running)
    yield still_open
    depth = GaugeMetricFamily("bridge_fleet_queue_depth", "Messages that no worker has taken", labels=("queue",))
    oldest = GaugeMetricFamily(
        "bridge_fleet_queue_oldest_seconds", "For how long the oldest of them has waited", labels=("queue",)
    )
    for one in health.queues:
        depth.add_metric((one.name,), one.depth)
        oldest.add_metric((one.name,), one.oldest_seconds or 0.0)
    yield depth
    yield oldest


def _state(counted: FleetTotals, health: SystemHealth) -> Iterator[Metric]:
    yield GaugeMetricFamily("bridge_fleet_dead_letters", "Dead letters that are kept", value=health.dead_letters)
    if health.workers is not None:
        yield GaugeMetricFamily("bridge_fleet_workers", "Workers that live", value=len(health.workers))
    if counted.looked is not None:
        yield GaugeMetricFamily(
            "bridge_fleet_reconciler_age_seconds", "Since lost messages were last looked for", value=counted.looked
        )


def _circuits(circuits: Mapping[str, CircuitState]) -> Metric:
    told = GaugeMetricFamily(
        "bridge_fleet_circuit_state", "1 for the state that a circuit is in", labels=("circuit", "state")
    )
    for name, now in sorted(circuits.items()):
        for state in CircuitState:
            told.add_metric((name, state.value), float(state is now))
    return told


def _add(family: CounterMetricFamily, labels: dict[str, str], count: int, example: Example | None) -> None:
    exemplar = None
    if example is not None and 0 < len(example.correlation_id) <= _LONGEST_ID:
        exemplar = Exemplar({"correlation_id": example.correlation_id}, 1.0, example.at)
    family.add_sample(f"{family.name}_total", labels, float(count), exemplar=exemplar)
