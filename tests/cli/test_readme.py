"""Every command and every snippet of the README is run here; one that nobody taught this file to run fails."""

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import REPOSITORY, environment, eventually
from tests.cli.conftest import Up

README = (REPOSITORY / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]
SNIPPETS = blocks("python")

ELSEWHERE = {
    "source .venv/bin/activate": "make's own set-up made it; the tests run in it",
    "bridge-tasks up": "the fixture `up`, and test_cli_up.py",
    "make bench": "tests/benchmarks",
    "make check": "CI's first step",
    "make test-fleet": "CI's third step",
}
"""What runs in another test, or around all of them."""

MAKE = {
    "make demo": {},
    "make test": {
        "PYTEST_ADDOPTS": "--collect-only --quiet tests/policies"
    },  # these tests, but not within themselves
}


def run(command: list[str], cwd: Path, extra: dict[str, str]) -> subprocess.CompletedProcess[str]:
    path = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        command, cwd=cwd, env=environment(path | extra), capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture(scope="module")
def documented(up: Up) -> Up:
    """The stack of `up`, in a directory with the files that the README names."""
    shutil.copytree(REPOSITORY / "docs", up.directory / "docs", dirs_exist_ok=True)
    for name in ("README.md", "CHANGELOG.md"):
        shutil.copy(REPOSITORY / name, up.directory / name)
    return up


@pytest.mark.parametrize("command", sorted(ELSEWHERE))
def test_what_runs_elsewhere_is_still_in_the_readme(command: str) -> None:
    assert command in COMMANDS


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_every_make_target_of_the_readme_exists(command: str) -> None:
    assert run([*shlex.split(command), "--dry-run"], REPOSITORY, {}).returncode == 0


@pytest.mark.parametrize("command", sorted(MAKE))
def test_make_does_what_the_readme_says(command: str) -> None:
    already_set_up = ["READY=", f"BIN={BIN}"]

    done = run([*shlex.split(command), *already_set_up], REPOSITORY, MAKE[command])

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_of_the_readme_end_well_one_after_the_other(documented: Up) -> None:
    """In the order in which the README gives them: what is validated must have been stamped."""
    for command in COMMANDS:
        if command.startswith("bridge-tasks ") and command not in ELSEWHERE:
            done = run(shlex.split(command), documented.directory, {})
            assert done.returncode == 0, command + done.stdout + done.stderr


def test_every_line_of_the_readme_is_run_by_some_test() -> None:
    ours = ("bridge-tasks ", "export BRIDGE_", "celery -A bridge_tasks.app worker")

    unknown = [line for line in COMMANDS if line not in ELSEWHERE | MAKE and not line.startswith(ours)]

    assert not unknown


def test_a_worker_runs_on_the_variables_that_the_readme_exports(documented: Up, tmp_path: Path) -> None:
    block = next(block for block in blocks("bash") if "export BRIDGE_REDIS_URL" in block)
    script = block.replace("redis://127.0.0.1:6379/0", documented.addresses["redis_url"])
    log = tmp_path / "worker.log"

    with log.open("w") as output:
        worker = subprocess.Popen(
            ["bash", "-euc", script.replace("celery -A", "exec celery -A")],
            cwd=documented.directory,
            env=environment({"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        assert eventually(lambda: " ready." in log.read_text(), 20), log.read_text()
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)


def test_the_orchestrators_snippet_stamps_files(documented: Up) -> None:
    done = run([sys.executable, "-c", SNIPPETS[0]], documented.directory, {})

    assert done.returncode == 0, done.stderr
    one, many, bulk = done.stdout.splitlines()
    assert re.fullmatch(r"[0-9a-f-]{36} [0-9a-f-]{36}", one), "a stamp's id, and the correlation id that was made"
    assert len(ast.literal_eval(many)) == 2
    assert re.fullmatch(r"2 [0-9a-f-]{36}", bulk), "both files, and the run's id"


def test_the_asyncio_snippet_hashes(documented: Up, capsys: pytest.CaptureFixture[str]) -> None:
    snippet = SNIPPETS[1].replace("http://127.0.0.1:8053", documented.addresses["metadata_url"])

    exec(snippet, {"__name__": "__main__"})  # noqa: S102 - our own README

    assert "'hash': '" in capsys.readouterr().out


def test_there_are_no_snippets_but_these() -> None:
    assert len(SNIPPETS) == 2
