"""What a probe makes of a pulse."""

from dataclasses import replace
from pathlib import Path

import pytest

from bridge_tasks import pulse
from bridge_tasks.pulse import SILENCE, STUCK, UNHEARD, Pulse, diagnose

NOW = 1000.0
WELL = Pulse(
    beat=NOW, turned=NOW, heard=NOW, connected=True, leaving=False, reading=True, full=False, longest=150.0
)
DEAD, ALIVE, CONSUMING = (False, False), (True, False), (True, True)


@pytest.mark.parametrize(
    ("felt", "state"),
    [
        (WELL, CONSUMING),
        (replace(WELL, heard=None), CONSUMING),  # a broker that does not tell
        (replace(WELL, beat=NOW - SILENCE - 1), DEAD),
        (replace(WELL, beat=NOW + 1), DEAD),  # of before the machine was started again
        (replace(WELL, turned=NOW - STUCK - 1), DEAD),
        (replace(WELL, heard=NOW - UNHEARD - 1), ALIVE),
        (replace(WELL, connected=False, turned=NOW - 900, heard=NOW - 900), ALIVE),
        (replace(WELL, leaving=True, turned=NOW - 140), ALIVE),
        (replace(WELL, reading=False, heard=NOW - 900), CONSUMING),  # it would, if it might
        (replace(WELL, full=True, heard=NOW - 140, turned=NOW - 140), CONSUMING),  # solo: jobs run in the loop
        (replace(WELL, full=True, heard=NOW - 151), ALIVE),  # no slot was free for longer than a job may take
        (replace(WELL, full=True, turned=NOW - 151), DEAD),
        (None, DEAD),
    ],
)
def test_a_worker_is_alive_and_consumes_if_its_pulse_says_so(felt: Pulse | None, state: tuple[bool, bool]) -> None:
    found = diagnose(felt, NOW)

    assert ((found.alive, found.consuming), bool(found.reason)) == (state, True)


def test_a_pulse_is_read_as_it_was_written(tmp_path: Path) -> None:
    pulse.write(tmp_path / "pulse", WELL)

    assert pulse.read(tmp_path / "pulse") == WELL
    assert [found.name for found in tmp_path.iterdir()] == ["pulse"]
    assert (tmp_path / "pulse").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"beat": 1}'])
def test_what_is_no_pulse_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "pulse").write_text(content)

    assert pulse.read(tmp_path / "pulse") is None
    assert pulse.read(tmp_path / "nothing") is None
