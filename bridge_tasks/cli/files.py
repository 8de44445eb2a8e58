"""Which files a path on the command line means. Reads names only, and never follows a link to a directory.

A file that is named is always taken, whatever it is: what is wrong with it is said in the report.
"""

import os
import stat
from collections.abc import Iterator, Sequence
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

    def __fspath__(self) -> str:
        """Its path: it can be opened, and stamped, as it is."""
        return str(self.path)


def expand(arguments: Sequence[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Iterator[Found]:
    """Give the files that the arguments mean: each once, those of a directory in the order of their paths.

    Gives them as they are found: of however many files there are, one directory's names are in memory (and, where
    there are several arguments, a few bytes for each file).

    Args:
        arguments: files and directories.
        include: globs; of a directory, only files that match one are taken. Default: all.
        exclude: globs; of a directory, files and directories that match one are not.

    A glob is held against a file's name and its path relative to the directory; `*` also matches `/`.

    Raises:
        InvalidRequest: a directory cannot be read.
    """
    seen: set[int] = set()
    for argument in arguments:
        # Path.is_dir raises where a name is too long or hidden from us; that belongs in the report.
        files = _walk(argument, include, exclude) if os.path.isdir(argument) else [argument]  # noqa: PTH112 - see above
        for file in files:
            if len(arguments) > 1:
                known = hash(os.path.abspath(file))  # noqa: PTH100 - Path has none without resolving links
                if known in seen:
                    continue
                seen.add(known)
            yield Found(file, argument)


def _walk(top: Path, include: Sequence[str], exclude: Sequence[str]) -> Iterator[Path]:
    levels = [(top, _entries(top))]
    while levels:
        folder, entries = levels[-1]
        name, is_directory = next(entries, (None, False))
        if name is None:
            levels.pop()
            continue
        path = folder / name
        if _matches(path, top, exclude):
            continue
        if is_directory:
            if not ignored_directory(name):
                levels.append((path, _entries(path)))
        elif not ignored_file(name) and (not include or _matches(path, top, include)) and _is_regular(path):
            yield path


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """Give the names in a directory in order, and whether each is a directory itself."""
    try:
        with os.scandir(folder) as entries:
            return iter(sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries))
    except OSError as error:  # a directory that is left out in silence looks like one that was done
        raise InvalidRequest("path", f"{folder} cannot be read; leave it out with --exclude") from error


def _matches(path: Path, top: Path, globs: Sequence[str]) -> bool:
    if not globs:
        return False
    relative = path.relative_to(top).as_posix()
    return any(fnmatchcase(path.name, glob) or fnmatchcase(relative, glob) for glob in globs)


def _is_regular(path: Path) -> bool:
    """Tell files (and links to files) from sockets, pipes, devices and broken links."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
