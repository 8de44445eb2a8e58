"""`bridge-tasks metrics`: the fleet's figures as text, and where workers serve their own."""

import json
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from bridge_tasks.cli.screen import say, show_json, show_lines
from bridge_tasks.exposition import FleetFigures
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.commands import text
from bridge_tasks.runtime import Runtime, current


def metrics(*, targets: bool, as_json: bool) -> int:
    """Print, and return the exit status: 1 if the ledger does not answer."""
    runtime = current(patient=True)
    figures = FleetFigures(lambda: runtime)
    if targets:
        show_lines(json.dumps(_targets(runtime)))
        return 0
    found = list(figures.collect())
    up = any(metric.name == "bridge_fleet_ledger_up" and metric.samples[0].value for metric in found)
    if as_json:
        show_json(
            {
                "metrics": [
                    {"name": sample.name, "labels": sample.labels, "value": sample.value}
                    for metric in found
                    for sample in metric.samples
                ],
                "workers": _targets(runtime) if up else [],
            }
        )
        return 0 if up else 1
    registry = CollectorRegistry()
    registry.register(figures)
    show_lines(*generate_latest(registry).decode().splitlines())
    for one in _targets(runtime) if up else ():
        say(f"{one['labels']['worker']}: http://{one['targets'][0]}/metrics")
    return 0 if up else 1


def _targets(runtime: Runtime) -> list[dict[str, Any]]:
    """Where living workers serve their figures, as Prometheus's file_sd reads it."""
    client = runtime.ledger_redis
    known = {text(name): text(address) for name, address in client.hgetall(keys.METRICS).items()}
    living = [name for name in sorted(known) if client.exists(keys.WORKER + name)]
    return [{"targets": [known[name]], "labels": {"worker": name.rpartition(":")[0]}} for name in living]
