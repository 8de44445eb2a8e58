"""The same workers on two hosts, one of which is cut off in the middle of jobs and comes back.

Hosts are network namespaces (`tests.chaos.network`); `.ci/hosts` installs what makes them.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.chaos.sides import ROOT, inherited
from tests.needed import lacking

AS_ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")
UNSHARE = ("unshare", *AS_ROOT, "--net")


@pytest.fixture
def apart() -> tuple[str, ...]:
    """How a process gets a network of its own; in CI it must."""
    missing = [program for program in ("unshare", "nsenter", "ip") if shutil.which(program) is None]
    reason = f"{', '.join(missing)}: missing (.ci/hosts)" if missing else ""
    if not missing and subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        reason = "this system lets nobody make network namespaces"
    if reason:
        lacking(reason)
    return UNSHARE


@pytest.mark.timeout(400)
def test_a_host_that_is_cut_off_and_comes_back_loses_nothing_and_nothing_is_stamped_twice(
    apart: tuple[str, ...],
) -> None:
    command = [*apart, sys.executable, "-m", "tests.chaos.hosts"]
    ended = subprocess.run(command, cwd=ROOT, env=inherited(), capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    told = json.loads(ended.stdout.splitlines()[-1])
    wrong = {name: told[name] for name in ("lost", "twice", "contrary", "failed", "leftovers") if told[name]}
    assert (told["accepted"], wrong) == (70, {})
    assert told["done_by_it_since"] > 0, "it works again"
    assert told["top"] == ["north@north", "south@south"], "each under its own host's name"
    assert told["paused_on"] == ["north", "south"], "one circuit for both"
