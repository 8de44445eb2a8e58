"""What is installed is what was chosen: in its range, of the noted version, from an index, its licence permitted.

No network is asked. Whether a flaw is known of a version, only `pip-audit` can tell (docs/security.md).
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from email.message import Message
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
OURS = canonicalize_name(PROJECT["name"])
TOOLS = {"pip", "setuptools", "wheel"}
"""What a new virtual environment has, or had, by itself."""

PERMITTED = {
    *("MIT", "MIT License", "MIT-CMU", "ISC License (ISCL)", "Zlib", "0BSD", "CC0-1.0"),
    *("BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause", "3-Clause BSD License"),
    *("Apache", "Apache-2.0", "Apache Software License", "PSF-2.0", "Python Software Foundation License"),
    # Whoever changes their files has to give the changes away; we change none.
    *("MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"),
}
READ_BY_US: Mapping[str, str] = {"aiocache": "BSD-3-Clause"}
"""Licences of those whose metadata name none: they were read in the files that they bring."""


def chosen() -> dict[str, str]:
    """Versions as they are noted, by name."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def asked_for() -> list[Requirement]:
    """What pyproject.toml asks for, all extras together; not ourselves."""
    every = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    found = [Requirement(line) for lines in every for line in lines]
    return [one for one in found if canonicalize_name(one.name) != OURS]


def licences(metadata: Message) -> list[str]:
    """The licences that a distribution names, the clearest of three ways first."""
    if expression := metadata.get("License-Expression"):
        return [word for word in re.split(r"[\s()]+", expression) if word not in ("", "AND", "OR")]
    classified = [one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier", ()) if "License ::" in one]
    if named := [one for one in classified if one != "DFSG approved"]:
        return named
    words = str(metadata.get("License") or "").split("\n", 1)[0]
    return [word for word in words.split(" OR ") if word]


def why_not(one: Distribution, known: Mapping[str, str] = READ_BY_US) -> str | None:
    """Why a distribution may not be used; None if it may."""
    named = licences(one.metadata) or [known[name] for name in (canonicalize_name(one.name),) if name in known]  # type: ignore[arg-type] # a Message
    if not named:
        return "names no licence"
    refused = [name for name in named if name not in PERMITTED]
    return f"is under {', '.join(refused)}" if refused else None


def reached(found: Mapping[str, Distribution]) -> Iterator[Distribution]:
    """What is here because we ask for it, or what we ask for does; not what a developer put beside it."""
    names, seen = [canonicalize_name(one.name) for one in asked_for()], {OURS, *TOOLS}
    while names:
        name = names.pop()
        if name in found and name not in seen:
            seen.add(name)
            yield found[name]
            names += [canonicalize_name(Requirement(line).name) for line in found[name].requires or ()]


INSTALLED = sorted(
    reached({canonicalize_name(one.name): one for one in distributions()}), key=lambda one: one.name
)


def test_what_is_installed_fits_together() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_that_runs_was_looked_at() -> None:
    assert {"celery", "kombu", "redis", "httpx", "flower"} <= {canonicalize_name(one.name) for one in INSTALLED}
    assert len(INSTALLED) > 80


@pytest.mark.parametrize("one", INSTALLED, ids=lambda one: one.name)
def test_a_distribution_is_of_the_noted_version_from_an_index_under_a_permitted_licence(one: Distribution) -> None:
    assert one.version == chosen().get(canonicalize_name(one.name)), "renew constraints.txt, or install anew"
    assert one.read_text("direct_url.json") is None, "it came from a file, a repository or a page"
    assert why_not(one) is None


@pytest.mark.parametrize("asked", asked_for(), ids=str)
def test_a_noted_version_is_in_the_range_that_is_asked_for(asked: Requirement) -> None:
    assert asked.specifier.contains(chosen()[canonicalize_name(asked.name)])
    assert asked.url is None


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["License-Expression: GPL-3.0-or-later"], "is under GPL-3.0-or-later"),
        (["License-Expression: MIT AND (AGPL-3.0-only OR Apache-2.0)"], "is under AGPL-3.0-only"),
        (["Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"], "is under GNU General"),
        (["License: Proprietary"], "is under Proprietary"),
        ([], "names no licence"),
        (["License-Expression: MIT OR Apache-2.0"], None),
        (["License: CC0-1.0 OR Apache-2.0"], None),
        (["License: whatever", "Classifier: License :: OSI Approved :: BSD License"], None),
    ],
)
def test_a_licence_that_is_not_on_the_list_is_refused(lines: list[str], why: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "thing-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.4", "Name: thing", "Version: 1.0", *lines, ""])
    )
    found = why_not(Distribution.at(folder))
    assert found == why if why is None else str(found).startswith(why)
