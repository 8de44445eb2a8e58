"""Names of what a machine made: whoever goes through somebody's work passes over it. Names only, no I/O.

`stamp` takes nothing of it from a directory, and the sandbox's OnexTree does not index it.
"""

import re
from collections.abc import Iterable
from fnmatch import translate


def _any_of(globs: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, globs)))


_DIRECTORIES = _any_of(
    (
        *(".git", ".hg", ".svn", ".bzr"),
        *("__pycache__", ".venv", "venv", "node_modules", ".tox", ".nox", ".eggs", "*.egg-info"),
        *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache"),
    )
)
_FILES = _any_of(
    (
        *("*.py[cod]", "*.class", "*.o", "*.obj", "*.a", "*.lib", "*.so", "*.so.*", "*.dylib", "*.dll", "*.exe"),
        ".bridge.env",  # the addresses of a stack
    )
)


def ignored_directory(name: str) -> bool:
    """Tell whether a directory of this name is version control, a cache, or an environment."""
    return _DIRECTORIES.match(name) is not None


def ignored_file(name: str) -> bool:
    """Tell whether a file of this name was compiled, or holds the addresses of a stack."""
    return _FILES.match(name) is not None
