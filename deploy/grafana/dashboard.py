"""The Grafana dashboard as code: `python deploy/grafana/dashboard.py > deploy/grafana/dashboard.json`.

Rows go from what an operator asks first (does work flow?) to why not. What begins with `bridge_fleet_` is the same
from every worker: `max`, never `sum`.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT = 8, 8
_COLUMNS = 24


@dataclass(frozen=True)
class Panel:
    """One graph.

    Attributes:
        title: what it answers.
        queries: PromQL, by legend.
        unit: Grafana's name of the unit.
        stat: a number of now, instead of a graph over time.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    stat: bool = False


def _p99(histogram: str, *by: str) -> str:
    labels = ", ".join(("le", *by))
    return f"histogram_quantile(0.99, sum by ({labels}) (rate({histogram}_bucket[$__rate_interval])))"


def _rate(counter: str, by: str) -> str:
    return f"sum by ({by}) (rate({counter}[$__rate_interval]))"


def _fleet_rate(counter: str, by: str) -> str:
    return f"max by ({by}) (rate({counter}[$__rate_interval]))"


def _grown(counter: str, by: str) -> str:
    return f"sum by ({by}) (increase({counter}[$__rate_interval]))"


def _fleet_grown(counter: str) -> str:
    return f"sum(max by (task) (increase({counter}[$__rate_interval])))"


_HITS = _rate('bridge_cache_lookups_total{hit="true"}', "service")

ROWS: dict[str, list[Panel]] = {
    "Does work flow?": [
        Panel("Workers that live", {"workers": "max(bridge_fleet_workers)"}, stat=True),
        Panel("Dead letters", {"dead letters": "max(bridge_fleet_dead_letters)"}, stat=True),
        Panel(
            "Circuits that are not closed",
            {"{{circuit}} {{state}}": 'max by (circuit, state) (bridge_fleet_circuit_state{state!="closed"})'},
            stat=True,
        ),
        Panel(
            "Ends of tasks",
            {"{{task}} {{state}}": _fleet_rate("bridge_fleet_tasks_ended_total", "task, state")},
            "ops",
        ),
        Panel(
            "Open tasks",
            {"{{queue}} {{state}}": "max by (queue, state) (bridge_fleet_tasks_open)"},
        ),
        Panel("Files of bulk runs", {"{{state}}": _fleet_rate("bridge_fleet_run_files_total", "state")}, "ops"),
        Panel("Queue depth", {"{{queue}}": "max by (queue) (bridge_fleet_queue_depth)"}),
        Panel("Age of the oldest job", {"{{queue}}": "max by (queue) (bridge_fleet_queue_oldest_seconds)"}, "s"),
        Panel("Accepted", {"{{task}}": _fleet_rate("bridge_fleet_tasks_accepted_total", "task")}, "ops"),
    ],
    "How long does it take?": [
        Panel("Tasks, 99th percentile", {"{{task}}": _p99("bridge_task_duration_seconds", "task")}, "s"),
        Panel(
            "Requests, 99th percentile",
            {"{{service}} {{operation}}": _p99("bridge_request_duration_seconds", "service, operation")},
            "s",
        ),
        Panel(
            "Requests by result",
            {"{{service}} {{result}}": _rate("bridge_request_duration_seconds_count", "service, result")},
            "reqps",
        ),
    ],
    "What stands in the way?": [
        Panel("Tasks put back", {"{{task}}": _fleet_rate("bridge_fleet_task_retries_total", "task")}, "ops"),
        Panel(
            "Retries of calls",
            {
                "{{service}} {{cause}}": _rate("bridge_retries_total", "service, cause"),
                "{{service}} refused by the budget": _rate("bridge_retries_refused_total", "service"),
            },
            "ops",
        ),
        Panel(
            "Changes of circuits",
            {"{{circuit}} {{new}}": _grown("bridge_circuit_transitions_total", "circuit, new")},
        ),
        Panel(
            "Calls held back",
            {"{{service}} {{cause}}": _rate("bridge_calls_held_back_total", "service, cause")},
            "ops",
        ),
        Panel(
            "Waits before calls, 99th percentile",
            {"{{service}} {{cause}}": _p99("bridge_call_wait_seconds", "service, cause")},
            "s",
        ),
        Panel("Queues paused", {"{{queue}}": _rate("bridge_queue_pauses_total", "queue")}, "ops"),
    ],
    "What do answers cost?": [
        Panel(
            "Cache hits",
            {"{{service}}": f"{_HITS} / {_rate('bridge_cache_lookups_total', 'service')}"},
            "percentunit",
        ),
        Panel(
            "Stale, shared and degraded answers",
            {
                "{{service}} stale": _rate("bridge_cache_stale_total", "service"),
                "{{service}} shared": _rate("bridge_cache_coalesced_total", "service"),
                "{{service}} degraded": _rate("bridge_answers_degraded_total", "service"),
            },
            "ops",
        ),
        Panel(
            "Hedged reads",
            {"{{service}} won={{won}}": _rate("bridge_requests_hedged_total", "service, won")},
            "ops",
        ),
    ],
    "Does the ledger keep up?": [
        Panel(
            "From the end of a run to its record, 99th percentile",
            {"lag": _p99("bridge_ledger_lag_seconds")},
            "s",
        ),
        Panel(
            "Messages found again",
            {
                "lost, put back": _fleet_grown("bridge_fleet_messages_requeued_total"),
                "of dead workers": "max(increase(bridge_fleet_messages_restored_total[$__rate_interval]))",
                "not run again: {{why}}": _grown("bridge_runs_spared_total", "why"),
            },
        ),
        Panel(
            "Dead letters, replayed and dropped",
            {
                "replayed": _fleet_grown("bridge_fleet_dead_letters_replayed_total"),
                "dropped": "max(increase(bridge_fleet_dead_letters_dropped_total[$__rate_interval]))",
            },
        ),
        Panel("Since the last look", {"age": "max(bridge_fleet_reconciler_age_seconds)"}, "s"),
        Panel("Questions unanswered", {"{{what}}": _rate("bridge_ledger_failures_total", "what")}, "ops"),
        Panel("Runs that began", {"{{task}}": _fleet_rate("bridge_fleet_task_runs_total", "task")}, "ops"),
    ],
}


def dashboard() -> dict[str, Any]:
    """Build what Grafana imports."""
    return {
        "uid": "bridge-tasks",
        "title": "bridge_tasks",
        "tags": ["bridge_tasks"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    numbers, y = count(1), 0
    for title, panels in ROWS.items():
        yield {
            "id": next(numbers),
            "type": "row",
            "title": title,
            "gridPos": _place(0, y, _COLUMNS, 1),
            "panels": [],
        }
        y += 1
        for index, panel in enumerate(panels):
            column = index * _WIDTH % _COLUMNS
            yield _panel(
                panel, next(numbers), _place(column, y + index * _WIDTH // _COLUMNS * _HEIGHT, _WIDTH, _HEIGHT)
            )
        y += -(-len(panels) * _WIDTH // _COLUMNS) * _HEIGHT


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query,
                "legendFormat": legend,
                "exemplar": True,
            }
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
