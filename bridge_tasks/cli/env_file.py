"""The file by which commands in the same directory find the stack of `up`. It replaces no file but its own."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bridge_tasks.errors import ConfigurationError

_FIRST_LINE = "# Written by `bridge-tasks up`, and removed when it ends."


def refuse_taken(path: Path, answers: Callable[[str], bool]) -> None:
    """Make sure that `path` can and may be written: it is free, or left by an `up` that is gone.

    Args:
        path: the file.
        answers: tells whether there is a Redis at a URL.

    Raises:
        ConfigurationError: we may not write there, somebody else wrote it, or its stack still answers.
    """
    directory = path.absolute().parent
    try:
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise ConfigurationError(f"{directory} cannot be written, and {path.name} belongs there") from error
    if not path.exists():
        return
    first, *lines = path.read_text().splitlines() or [""]
    if first != _FIRST_LINE:
        raise ConfigurationError(f"{path.name} is here already and was not written by `bridge-tasks up`")
    variables = dict(line.split("=", 1) for line in lines if "=" in line)
    url = variables.get("BRIDGE_REDIS_URL", "").strip("'")
    if url and answers(url):
        raise ConfigurationError(f"a stack is up in this directory already; if not so, remove {path.name}")


@contextmanager
def env_file(path: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Have the variables in a file of mode 0600 for the length of a `with` block."""
    content = "\n".join([_FIRST_LINE, *(f"{name}='{value}'" for name, value in variables.items()), ""])
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        temporary.replace(path)
        yield
    finally:
        temporary.unlink(missing_ok=True)
        if path.exists() and path.read_text() == content:  # another `up` may have written its own since
            path.unlink()
