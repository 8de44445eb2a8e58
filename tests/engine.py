"""The container engine for tests: a copy of the project, run by compose under its own name, and taken down again.

A pytest plugin: a conftest imports it. Where no engine runs, a test is skipped with the reason; in CI, it fails.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.needed import lacking

REPOSITORY = Path(__file__).parents[1]
_PLAIN = ("constraints.txt", "README.md", "LICENSE")
FILES = ("Dockerfile", ".dockerignore", "docker-compose.yml", "celeryconfig.py", "pyproject.toml", *_PLAIN)
FOLDERS = ("bridge_tasks", "deploy", "docs")
_OWN = ("BRIDGE_", "FLOWER_", "COMPOSE_", "PROMETHEUS_")
"""What a developer has set for other stacks is not for this one."""
_PATIENCE = 300


@dataclass(frozen=True, slots=True)
class Project:
    """A copy of what containers are built from, and compose for it."""

    directory: Path
    environment: Mapping[str, str]
    command: Sequence[str]

    def run(self, command: Sequence[str] | str) -> "subprocess.CompletedProcess[str]":
        """Run a command in it, or a line of shell; whether it ends well is for the caller to say."""
        return subprocess.run(
            ["bash", "-euc", command] if isinstance(command, str) else command,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )

    def well(self, *command: str) -> str:
        """Run a command that must end well, and return what it says."""
        done = self.run(command)
        assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout

    def compose(self, *arguments: str) -> str:
        """Run compose, with the services of the profile `sandbox`."""
        return self.well(*self.command, "--profile", "sandbox", *arguments)

    def documented(self, line: str) -> "subprocess.CompletedProcess[str]":
        """Run a line of the documentation, with whichever compose there is."""
        return self.run(line.replace("docker-compose ", f"{' '.join(self.command)} "))

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What the engine says of the containers that there are, of one service or of all."""
        labels = {"project": self.environment["COMPOSE_PROJECT_NAME"], **({"service": service} if service else {})}
        filters = [f"--filter=label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        names = self.well("docker", "ps", "--all", "--quiet", *filters).split()
        return list(json.loads(self.well("docker", "inspect", *names))) if names else []


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    command = _compose()
    directory = tmp_path_factory.mktemp("project")
    for name in FILES:
        shutil.copy(REPOSITORY / name, directory / name)
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    environment = {
        **inherited,
        "COMPOSE_PROJECT_NAME": f"bridge-test-{uuid4().hex[:8]}",
        "BRIDGE_REDIS_FSYNC": "always",  # what is tested is what is promised of it
        "FLOWER_PORT": "",  # a free one
    }
    project = Project(directory, environment, command)
    (directory / ".env").write_text("BRIDGE_REDIS_PASSWORD=unused\nFLOWER_BASIC_AUTH=unused:unused\n")
    try:
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "0")


@pytest.fixture(scope="session")
def images(project: Project) -> None:
    """Build both images."""
    project.compose("build")


def _compose() -> list[str]:
    """Return the compose that is there, for an engine that runs."""
    reason = None
    if shutil.which("docker") is None or _fails("docker", "info"):
        reason = "no container engine runs here"
    found = [one for one in (["docker", "compose"], ["docker-compose"]) if not _fails(*one, "version")]
    if not found:
        reason = reason or "neither docker compose nor docker-compose is here"
    if reason is not None:
        lacking(reason)
    return found[0]


def _fails(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode != 0
    except OSError:
        return True
