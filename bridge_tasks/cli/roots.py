"""What a person is told who has set nothing up here, or names a file that jobs may not read."""

import os
from collections.abc import Iterable
from pathlib import Path

from bridge_tasks.content.allowed import real_path, why
from bridge_tasks.errors import ConfigurationError, InvalidRequest
from bridge_tasks.settings import ENV_FILE, load

_UP = "run bridge-tasks up in this directory"


def require_roots(arguments: Iterable[Path]) -> None:
    """Make sure that jobs may read something.

    Raises:
        InvalidRequest: nothing is set up, and an argument does not exist anyway.
        ConfigurationError: nothing is set up; the message says how to.
    """
    if load().content.roots:
        return
    for argument in arguments:
        if reason := _unavailable(argument):
            raise InvalidRequest(str(argument), reason)
    raise ConfigurationError(nothing_set_up())


def nothing_set_up() -> str:
    """Say how to begin where no roots are known."""
    return f"Nothing is set up here: {_elsewhere() or f'{_UP}, or set BRIDGE_CONTENT__ROOTS'}"


def nothing_runs() -> str:
    """Say how to begin where nothing answers."""
    return f"Nothing runs here: {_elsewhere() or f'{_UP}, or set BRIDGE_REDIS_URL'}"


def _elsewhere() -> str | None:
    """Look for the file of a stack in the directories above: the way there is short."""
    if Path(ENV_FILE).exists():
        return None
    above = next((above for above in Path.cwd().parents if (above / ENV_FILE).is_file()), None)
    return f"{ENV_FILE} is in {above}, run this from there" if above else None


def why_refused(error: InvalidRequest, path: Path) -> str:
    """Say why a file was refused: that it does not exist before anything else, and which roots it is outside."""
    if error.field != "content.path":
        return str(error)
    if reason := _unavailable(path):
        return reason
    roots = load().content.roots
    if not any(real_path(path).is_relative_to(root) for root in roots):
        return f"is outside the directories that jobs may read: {', '.join(roots)}"
    return error.reason


def _unavailable(path: Path) -> str | None:
    try:
        os.stat(path)  # noqa: PTH116 - as Path.stat, but for names that Path refuses in its own words
    except (OSError, ValueError) as error:
        return why(error)
    return None
