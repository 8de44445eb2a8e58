"""Every `bridge-tasks` command that a document or a screen names is one, with the options that it names."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from bridge_tasks.checking import found
from bridge_tasks.cli.commands import app
from tests.checking.test_rules import PLANTED

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NAMED = re.compile(r"bridge-tasks((?: +[^\s`|\"')#;:,]+)+)")


def named(text: str) -> set[str]:
    return {command.strip() for command in NAMED.findall(text)}


def refused(command: str) -> str | None:
    """What of a typed command there is not."""
    at: Any = get_command(app)
    for word in command.split():
        if word in ("--", "&&", ">"):
            return None
        if word.startswith("-"):
            known = {name for one in at.params for name in (*one.opts, *one.secondary_opts)}
            if word.partition("=")[0] not in known | {"--help"}:
                return word
        elif hasattr(at, "commands"):
            if word not in at.commands:
                return word
            at = at.commands[word]
    return None


SAID = {
    (path.name, command)
    for path in DOCUMENTS
    for block in re.findall(r"`[^`]+`|^bridge-tasks .*$", path.read_text(), re.MULTILINE)
    for command in named(block)
}


@pytest.mark.parametrize(("document", "command"), sorted(SAID))
def test_a_command_in_a_document_is_one(document: str, command: str) -> None:
    assert refused(command) is None, f"{document}: bridge-tasks {command}"


def test_what_is_no_command_is_found() -> None:
    assert [refused(one) for one in ("toop", "top --twice", "dead undo", "top --once")] == [
        "toop",
        "--twice",
        "undo",
        None,
    ]


def test_the_fixes_of_check_name_commands_that_there_are() -> None:
    fixes = [finding.fix for *_, facts in PLANTED for finding in found(facts)]
    assert [refused(command) for fix in fixes for command in named(fix)] == [None]


def test_every_finding_that_the_runbook_names_is_one() -> None:
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    ids = {row[0] for row in PLANTED}
    assert set(re.findall(r"`((?:redis|root)-[a-z-]+)`", text)) <= ids
