"""What operators deploy: alerts that promtool takes, a dashboard that is its code's, only metrics that exist."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge_tasks import runtime
from bridge_tasks.exposition import FleetFigures
from bridge_tasks.observability.counters import METRICS
from bridge_tasks.observability.figures import Timed
from tests.observability.scraping import promtool

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
NAME = re.compile(r"\bbridge_[a-z_]+")


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())


@pytest.fixture
def known(idle: redis.Redis) -> set[str]:
    """The names of all samples that a worker tells, or may tell."""
    idle.set("bridge:looked", 1)
    families = list(FleetFigures(runtime.current).collect())
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    for metric in METRICS.values():
        ends = ("_bucket", "_sum", "_count") if isinstance(metric, Timed) else ("_total",)
        names |= {metric.name + end for end in ends}
    return names


def queries(dashboard: Any) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_the_dashboard_is_what_its_code_makes(dashboard: Any) -> None:
    made = runpy.run_path(str(DEPLOY / "grafana" / "dashboard.py"))["dashboard"]()
    assert dashboard == made


def test_panels_have_a_place_and_a_number_of_their_own(dashboard: Any) -> None:
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places) == len(set(places))
    taken = [
        (x, y)
        for left, top, wide, high in places
        for x in range(left, left + wide)
        for y in range(top, top + high)
    ]
    assert len(taken) == len(set(taken))


def test_dashboard_and_alerts_ask_for_what_there_is_and_the_dashboard_for_all_that_matters(
    dashboard: Any, known: set[str]
) -> None:
    asked = {name for query in queries(dashboard) for name in NAME.findall(query)}
    alerted = set(NAME.findall(re.sub(r"(?m)^\s*#.*$", "", ALERTS.read_text())))
    assert asked - known == set()
    assert alerted - known == set()
    missing = {name for name in known if name.startswith("bridge_fleet_")} - asked
    assert missing == {"bridge_fleet_ledger_up"}  # an alert's


def test_promtool_takes_the_alerts_and_they_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(ALERTS))
    assert "SUCCESS" in promtool("test", "rules", str(ALERTS.with_name("alerts_test.yml")))
    for name in ("prometheus.yml", "compose.yml"):
        promtool("check", "config", "--syntax-only", str(ALERTS.with_name(name)))


def test_the_dashboard_s_queries_are_promql(dashboard: Any, tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries(dashboard))
    ]
    file = tmp_path / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_the_runbook_tells_what_to_do_for_every_alert() -> None:
    runbook = (DEPLOY.parent / "docs" / "operations.md").read_text()
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    assert alerts
    assert [name for name in alerts if f"`{name}`" not in runbook] == []
