"""That each measurement runs, in a short form, and ends as it promises.

Speed is never tested here: neighbours would decide. What Redis counts is: commands do not depend on how busy the
machine is.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import BENCHMARKS, DRAWN, PAGE, figures_of, main, written

SHORT = {
    "call_overhead": ["--rounds", "1", "--calls", "20"],
    "replicas": ["--rounds", "1", "--calls", "3"],
    "processes": ["--rounds", "1", "--calls", "3", "--counts", "1,2"],
    "rejection": ["--rounds", "1", "--calls", "20"],
    "cache_hit": ["--rounds", "1", "--calls", "10"],
    "store_away": ["--seconds", "1"],
    "submitting": ["--rounds", "1", "--files", "20"],
    "throughput": [
        *("--rounds", "1", "--files", "2", "--bulk", "10", "--latencies", "0", "--workers", "1"),
    ],
    "observability": ["--rounds", "1", "--files", "4"],
}
"""How little each needs to show that it works; `recovery` is tests/fleet's, where what it finds is asserted."""

SHARED = {"__init__", "harness", "peers", "plots", "report", "canned_server", "plain_celery", "stage"}
"""What measures nothing by itself."""

ELSEWHERE = {"bulk_memory", "failover", "job_cost", "worker_count"}
"""What is no part of this page."""

pytestmark = pytest.mark.timeout(300)


def rows(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each row by what its first column says."""
    return {str(next(iter(row.values()))): row for row in figures["rows"]}


def test_every_benchmark_has_a_short_form_or_a_test_of_its_own() -> None:
    folder = {path.stem for path in PAGE.parents[1].joinpath("benchmarks").glob("*.py")}
    assert folder - SHARED - ELSEWHERE == set(BENCHMARKS) == {*SHORT, "recovery"}


@pytest.mark.parametrize(
    "name", [name for name in SHORT if name not in ("call_overhead", "rejection", "cache_hit")]
)
def test_it_ends_in_one_line_of_json_with_a_table(name: str) -> None:
    figures = figures_of(name, SHORT[name])
    assert all(row.keys() == figures["rows"][0].keys() for row in figures["rows"])


def test_a_guarded_call_asks_redis_less_often_than_its_peers() -> None:
    figures = figures_of("call_overhead", SHORT["call_overhead"])
    found = rows(figures)
    assert set(found) == {
        "bare",
        "tenacity+pybreaker",
        "tenacity+interlock",
        "guarded",
        "bare, 3 in turn",
        "guarded, 3 replicas",
    }
    assert found["tenacity+pybreaker"]["Redis commands a call"] >= 2
    assert figures["redis_commands_per_call"] == found["guarded"]["Redis commands a call"] < 1
    assert figures["ratio_guarded_to_bare"] > 0
    assert figures["ratio_balanced_to_bare_in_turn"] > 0


def test_a_refusal_asks_redis_for_nothing() -> None:
    found = rows(figures_of("rejection", SHORT["rejection"]))
    assert found["our breaker"]["Redis commands a refusal"] < 0.5, "a look once a second, not at each refusal"
    assert found["pybreaker"]["Redis commands a refusal"] >= 2


def test_an_answer_held_near_asks_redis_for_nothing() -> None:
    found = rows(figures_of("cache_hit", SHORT["cache_hit"]))
    assert found["ours, near"]["Redis commands a hit"] < 0.5
    assert found["ours, Redis"]["Redis commands a hit"] >= 1


def test_a_benchmark_can_be_run_by_its_path_and_shows_its_table_to_eyes() -> None:
    script = PAGE.parents[1] / "benchmarks" / "replicas.py"
    command = [sys.executable, str(script), *SHORT["replicas"]]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert run.stdout.splitlines()[0].startswith("| replicas |")


def test_the_page_has_a_place_for_every_table_and_every_plot() -> None:
    page = PAGE.read_text()
    for name in (*BENCHMARKS, "circumstances"):
        assert written(page, name, {"rows": [{"here": name}]}).count(f"| {name}") == 1
    for name in DRAWN:
        picture = f"performance-{name.replace('_', '-')}.png"
        assert f"]({picture})" in page
        assert (PAGE.parent / picture).read_bytes().startswith(b"\x89PNG")


def test_the_report_replaces_tables_and_draws_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a page of people's, and figures as benchmarks give them
    page = shutil.copy(PAGE, tmp_path / "performance.md")
    rates = [[-1.0, 100.0], [0.0, 0.0], [1.0, 90.0]]
    drawn = {"sent": rates, "calm": rates, "changes": [[0.1, "open"], [0.9, "closed"]]}
    figures = {
        "rows": [{"peer": "guarded", "processes": 1, "to bare": 0.5, "processor to bare": 0.5}],
        "drawn": {"guarded": drawn, "unprotected": {**drawn, "changes": []}},
        "outage": 1.0,
    }
    monkeypatch.setattr("benchmarks.report.figures_of", lambda *_: figures)
    # When it is renewed
    monkeypatch.setattr(sys, "argv", ["report", "--into", str(page), "--json", *DRAWN])
    main()
    # Then its tables and plots are new, and the rest is as it was
    assert set(json.loads(capsys.readouterr().out)) == set(DRAWN)
    assert Path(page).read_text().count("| guarded | ") == len(DRAWN)
    assert len(list(tmp_path.glob("*.png"))) == len(DRAWN)
    assert Path(page).read_text().splitlines()[0] == PAGE.read_text().splitlines()[0]
