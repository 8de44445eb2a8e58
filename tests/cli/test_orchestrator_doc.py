"""The code of docs/orchestrator.md is run here, on the stack of `bridge-tasks up`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import REPOSITORY, environment
from tests.cli.conftest import Up

DOC = (REPOSITORY / "docs" / "orchestrator.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)

ASK = """
from fastapi.testclient import TestClient

with TestClient(app) as http:
    submitted = http.post("/stamps", json={"path": "README.md", "context": "the web"})
    assert submitted.status_code == 202, submitted.text
    name = submitted.json()["job"]
    done = http.get(f"/stamps/{name}", params={"wait": 30}).json()
    assert (done["state"], done["result"]["path"].endswith("README.md")) == ("succeeded", True), done
    assert http.get(f"/stamps/{name}").json() == {"state": "succeeded"}
    assert http.post("/stamps", json={"path": "README.md", "context": "the web"}).json()["known"]
    assert http.get("/stamps/nobody").status_code == 404
    assert http.post("/stamps", json={"path": "/etc/passwd", "context": "x"}).status_code == 422
    assert http.delete(f"/stamps/{name}").json() == {"cancelled": False}
    assert http.delete("/stamps/nobody").status_code == 404
    health = http.get("/health")
    assert (health.status_code, health.json()["healthy"]) == (200, True), health.text
print("well")
"""


@pytest.fixture(scope="module")
def documented(up: Up) -> Path:
    for name in ("README.md", "CHANGELOG.md"):
        shutil.copy(REPOSITORY / name, up.directory / name)
    return up.directory


def run(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        cwd=directory,
        env=environment({"PYTHONPATH": paths}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_orchestrator_of_the_guide_works_over_jobs(documented: Path) -> None:
    done = run(SNIPPETS[0] + SNIPPETS[1], documented)

    assert done.returncode == 0, done.stderr
    assert "ResourceWarning" not in done.stderr
    stamps, states, *paths = done.stdout.splitlines()
    assert re.fullmatch(r"[0-9a-f-]{36} [0-9a-f-]{36}", stamps)
    assert states == "succeeded succeeded"
    assert sorted(Path(path).name for path in paths) == ["CHANGELOG.md", "README.md"]


def test_the_web_application_submits_tells_and_says_how_it_is(documented: Path) -> None:
    done = run(SNIPPETS[2] + ASK, documented)

    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
    assert "ResourceWarning" not in done.stderr


def test_there_are_no_snippets_but_these() -> None:
    assert len(SNIPPETS) == 3
