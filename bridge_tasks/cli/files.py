"""Which files a path on the command line means. Reads names only, and never follows a link to a directory.

A file that is named is always taken, whatever it is: what is wrong with it is said in the report.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from bridge_tasks.errors import InvalidRequest
from bridge_tasks.models.ignored import ignored_directory, ignored_file


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and the argument of the command line that it came from."""

    path: Path
    argument: Path


def expand(arguments: Iterable[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Found]:
    """List the files that the arguments mean: each once, those of a directory in the order of their paths.

    Args:
        arguments: files and directories.
        include: globs; of a directory, only files that match one are taken. Default: all.
        exclude: globs; of a directory, files and directories that match one are not.

    A glob is held against a file's name and its path relative to the directory; `*` also matches `/`.

    Raises:
        InvalidRequest: a directory cannot be read.
    """
    found: dict[str, Found] = {}
    for argument in arguments:
        # Path.is_dir raises where a name is too long or hidden from us; that belongs in the report.
        files = sorted(_walk(argument, include, exclude)) if os.path.isdir(argument) else [argument]  # noqa: PTH112 - see above
        for file in files:
            found.setdefault(os.path.abspath(file), Found(file, argument))  # noqa: PTH100 - Path has none without resolving links
    return list(found.values())


def _walk(top: Path, include: Sequence[str], exclude: Sequence[str]) -> Iterator[Path]:
    for folder, directories, names in os.walk(top, onerror=_refuse):
        here = Path(folder)
        directories[:] = [
            name for name in directories if not ignored_directory(name) and not _matches(here / name, top, exclude)
        ]
        for name in names:
            file = here / name
            if ignored_file(name) or _matches(file, top, exclude):
                continue
            if (not include or _matches(file, top, include)) and _is_regular(file):
                yield file


def _matches(path: Path, top: Path, globs: Sequence[str]) -> bool:
    relative = path.relative_to(top).as_posix()
    return any(fnmatchcase(path.name, glob) or fnmatchcase(relative, glob) for glob in globs)


def _is_regular(path: Path) -> bool:
    """Tell files (and links to files) from sockets, pipes, devices and broken links."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _refuse(error: OSError) -> None:
    """Say so: a directory that is left out in silence looks like one that was done."""
    raise InvalidRequest("path", f"{error.filename} cannot be read; leave it out with --exclude") from error
