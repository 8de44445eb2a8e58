"""Every setting there is, as people set it: the variable's name, what it takes, its default, what it means.

Read from the settings' own classes and docstrings, so it cannot lag behind them. It reads no environment, and
shows no value that somebody has set. `python -m bridge_tasks.configuration` prints docs/configuration.md.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import isinf
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, SecretStr

from bridge_tasks.settings import Settings

PREFIX = "BRIDGE_"
NOT_OURS = frozenset({"BRIDGE_WORKER_NAME", "BRIDGE_REDIS_PASSWORD", "BRIDGE_DATA"})
"""Variables of the same prefix that are no settings: of a worker's children, and of docker-compose.yml."""

_ENTRY = re.compile(r"^ {4}(\w+): (.*)$")
_MORE = re.compile(r"^ {8}(.*)$")


@dataclass(frozen=True, slots=True)
class Setting:
    """One of them.

    Attributes:
        name: the variable.
        takes: what may be in it, in a few words.
        default: what holds without it.
        meaning: in a sentence.
        section: of which branch of the tree it is; empty for the trunk.
        named: whether further names are joined to it (`…__PER_MINUTE__GET_STAMP`).
    """

    name: str
    takes: str
    default: str
    meaning: str
    section: str
    named: bool = False


def all_settings() -> list[Setting]:
    """Return all of them, in the order in which the settings define them."""
    return list(_below(Settings, None, (), ""))


def known(variable: str, settings: Sequence[Setting]) -> bool:
    """Say whether a variable means something: a setting, or a whole branch as JSON."""
    name = variable.upper()
    return name in NOT_OURS or any(
        name == one.name or one.name.startswith(f"{name}__") or (one.named and name.startswith(f"{one.name}__"))
        for one in settings
    )


def meanings(kind: type) -> dict[str, str]:
    """Read what a class and those that it is made of say in their docstrings about their attributes."""
    told: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        _, _, attributes = inspect.cleandoc(one.__dict__.get("__doc__") or "").partition("Attributes:\n")
        name = ""
        for line in attributes.splitlines():
            if entry := _ENTRY.match(line):
                name, told[entry[1]] = entry[1], entry[2]
            elif (more := _MORE.match(line)) and name:
                told[name] += f" {more[1]}"
    return told


def _below(kind: type, values: Any, path: tuple[str, ...], section: str) -> Iterator[Setting]:
    told = meanings(kind)
    branches: list[tuple[str, type, Any]] = []
    for name, annotation, value in _fields(kind, values):
        below = _branch(annotation)
        if below is not None:
            branches.append((name, below, value))
            continue
        variable = PREFIX + "__".join((*path, name)).upper()
        named = get_origin(annotation) is Mapping
        yield Setting(variable, _takes(annotation), _written(value), told.get(name, ""), section, named)
    for name, below, value in branches:
        deeper = (*path, name)
        yield from _below(below, value, deeper, PREFIX + "__".join(deeper).upper())


def _fields(kind: type, values: Any) -> Iterator[tuple[str, Any, Any]]:
    hints = get_type_hints(kind, include_extras=True)
    if issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            yield name, hints[name], info.default if values is None else getattr(values, name)
    elif is_dataclass(kind):
        for field in fields(kind):
            yield field.name, hints[field.name], getattr(values, field.name)


def _branch(annotation: Any) -> type | None:
    plain = _bare(annotation)
    branch = isinstance(plain, type) and (issubclass(plain, BaseModel) or is_dataclass(plain))
    return plain if branch else None


def _bare(annotation: Any) -> Any:
    """Strip what pydantic adds to a type, and `or nothing`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        (one, *_) = (part for part in get_args(annotation) if part is not NoneType)
        return _bare(one)
    return annotation


def _takes(annotation: Any) -> str:
    plain = _bare(annotation)
    origin = get_origin(plain)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(plain))
    if origin is tuple:
        member = _bare(get_args(plain)[0])
        return f"{_takes(member)}, comma-separated" if get_origin(member) is Literal else "comma-separated"
    if origin is Mapping:
        return "a whole number for each `__NAME`"
    return {bool: "`true` or `false`", int: "whole number", float: "number", str: "text", SecretStr: "URL"}[plain]


def _written(value: Any) -> str:
    if isinstance(value, float) and isinf(value):
        return "no limit"
    match value:
        case SecretStr():
            told = value.get_secret_value()  # the one in the code, not the one in the environment
        case bool():
            told = str(value).lower()
        case tuple():
            told = ",".join(value)
        case float():
            told = f"{value:.15g}"
        case None | Mapping():
            told = ""
        case _:
            told = str(value)
    return f"`{told}`" if told else ""


_HEAD = """# Configuration

Every setting: an environment variable, read once when a process starts. Generated from the code
(`python -m bridge_tasks.configuration > docs/configuration.md`); do not edit.

* Lists are comma-separated. Durations are seconds.
* A file `.bridge.env` in the working directory is read first, if it is yours and nobody else may write to it.
* A variable that is wrong is named when a process starts; one that is misspelt, by `bridge-tasks check`.
* The values of Celery itself, and how to change them: `bridge_tasks/celeryconfig.py`, `celeryconfig.py`.
"""


def document(settings: Sequence[Setting]) -> str:
    """Write all of it as Markdown."""
    parts = [_HEAD]
    section: str | None = None
    for one in settings:
        if one.section != section:
            section = one.section
            parts.append(f"\n## {f'`{section}__…`' if section else 'All of it'}\n")
            parts.append("| variable | takes | default | |\n|---|---|---|---|")
        short = one.name.removeprefix(f"{section}__") if section else one.name
        parts.append(f"| `{short}` | {one.takes} | {one.default} | {one.meaning} |")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document(all_settings()))
