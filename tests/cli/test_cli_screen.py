import json

import pytest

from bridge_tasks.cli.screen import counted, printable, say, shortened, show_facts, show_json, show_rows


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


def test_a_path_that_is_too_long_keeps_its_end_whatever_its_letters() -> None:
    assert shortened("docs/a.md", 9).plain == "docs/a.md"
    assert shortened("docs/deep/a.md", 9).plain == "…eep/a.md"
    assert shortened("文書/文書/a.md", 9).plain == "…書/a.md"


def test_on_80_columns_ids_do_not_wrap_and_errors_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stamp_id = "123e4567-e89b-12d3-a456-426614174000"
    path = "/".join(["a-long-way-down"] * 8) + "/end.md"
    show_rows(("File", "State", "Stamp or reason"), [(path, "succeeded", stamp_id), (path, "failed", "why " * 30)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[0].startswith("…")
    assert lines[1].split()[0].endswith("/end.md")
    assert lines[1].split()[-1] == stamp_id
    assert "".join(lines[2:]).count("why") == 30
