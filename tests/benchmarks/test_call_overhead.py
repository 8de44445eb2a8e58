import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "call_overhead.py"


def test_the_benchmark_ends_with_one_line_of_json_that_names_the_ratio_and_the_peers() -> None:
    """Speed is never tested here: noisy neighbours would decide. That the measurement runs, is."""
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--rounds", "1", "--calls", "3", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    measured = json.loads(run.stdout.splitlines()[-1])

    assert measured["ratio_guarded_to_bare"] > 0
    assert measured["redis_commands_per_call"] < 0.5, "shared state is asked about once a second, not at each call"
    assert set(measured["peers"]) == {"bare", "tenacity+pybreaker", "guarded"}
    assert measured["peers"]["tenacity+pybreaker"]["redis_commands_per_call"] == 2
