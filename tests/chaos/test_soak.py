"""The campaign in its short form, and its judge: a judge that finds nothing must be able to find something."""

import json
import subprocess
import sys

import pytest

from tests.chaos.campaign import Accepted
from tests.chaos.sides import ROOT, inherited
from tests.chaos.soak import SHORT, judge
from tests.rabbit_server import require_rabbit


def judged(state: str, done: int) -> list[str]:
    """The names of what the judge finds wrong with one job."""
    verdict = judge([Accepted("j", "single", "/f")], {"j": state}, {"/f": done} if done else {})
    return [name for name in ("lost", "twice", "contrary") if getattr(verdict, name)]


@pytest.mark.parametrize(
    ("state", "done", "found"),
    [
        ("succeeded", 1, []),
        ("failed", 0, []),
        ("cancelled", 0, []),
        ("open", 0, ["lost"]),
        ("open", 1, ["lost"]),
        ("unknown", 1, ["lost"]),
        ("succeeded", 0, ["lost"]),
        ("succeeded", 2, ["twice"]),
        ("failed", 1, ["contrary"]),
        ("failed", 2, ["twice", "contrary"]),
    ],
)
def test_the_judge_finds_what_is_lost_done_twice_or_told_otherwise(
    state: str, done: int, found: list[str]
) -> None:
    assert judged(state, done) == found


@pytest.mark.timeout(300)
def test_a_failover_in_the_middle_loses_nothing_and_stamps_nothing_twice() -> None:
    plan = ["--jobs", "150", "--kills", "4", "--restarts", "1", "--pace", "3", "--seed", "1", "--json"]
    command = [sys.executable, "-m", "tests.chaos.soak", "--sentinel", *plan]
    ended = subprocess.run(command, cwd=ROOT, env=inherited(), capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    figures = json.loads(ended.stdout.splitlines()[-2])
    assert (figures["accepted"], figures["failovers"], figures["lost"], figures["twice"]) == (150, 1, 0, 0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_a_short_campaign_loses_nothing_and_stamps_nothing_twice(broker: str) -> None:
    if broker == "amqp":
        require_rabbit()
    command = [sys.executable, "-m", "tests.chaos.soak", *SHORT, "--seed", "1", "--broker", broker]
    ended = subprocess.run(command, cwd=ROOT, env=inherited(), capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    assert "0 lost, 0 stamped twice" in ended.stdout.splitlines()[-1]
