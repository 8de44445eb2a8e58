import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_of_ten_thousand_files_keeps_its_submitter_small_and_takes_little_of_redis() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bulk_memory", "--files", "10000", "--work", "0", "--json"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )

    figures = json.loads(done.stdout.splitlines()[-1])

    assert figures["submitter's growth, kB"] < 4_000
    assert figures["bytes in Redis for each waiting file"] < 1_000
    assert figures["cancelled within, s"] < 2
