import json

import pytest

from bridge_tasks.cli.screen import counted, printable, say, show_facts, show_json, show_rows


def test_control_characters_and_broken_names_are_written_as_escapes() -> None:
    assert printable("a\x1b[31m\n\udcff\u202e é") == r"a\x1b[31m\n\udcff\u202e é"


def test_nothing_that_is_shown_reaches_the_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]0;owned\x07\udcff[bold red]x[/]"
    show_rows(("File", "State"), [(hostile, "failed")])
    show_facts("Facts", {"Name": hostile})
    say(hostile)
    show_json({"path": hostile})
    shown = "".join(capsys.readouterr())
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert shown.count("[bold red]") == 4  # and is no markup


def test_json_is_one_line_that_gives_back_what_was_put_in(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"path": "a\nb\udcff"})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"path": "a\nb\udcff"}


def test_one_is_no_plural() -> None:
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
