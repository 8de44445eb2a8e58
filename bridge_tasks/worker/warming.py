"""The list of what workers ask when they start (`BRIDGE_ONEXTREE__WARM`)."""

from collections.abc import Iterable
from pathlib import Path

from bridge_tasks.errors import ConfigurationError
from bridge_tasks.models.requests import MAX_WARM_CONTEXTS

_SETTING = "BRIDGE_ONEXTREE__WARM"
_PATHS = ("/", "./", "../", "~/")


def warm_list(setting: str) -> list[str]:
    """Read the setting: a file (named by a path that begins so), or contexts, comma-separated.

    Raises:
        ConfigurationError: the file cannot be read, or the list is too long.
    """
    if setting.startswith(_PATHS) and "," not in setting:
        return read_list(Path(setting).expanduser(), _SETTING)
    return _contexts(setting.split(","), _SETTING)


def read_list(file: Path, name: str) -> list[str]:
    """Read a file with one context on each line. Blank lines, and those that begin with `#`, say nothing.

    Args:
        file: where it is.
        name: what people call it, for messages.

    Raises:
        ConfigurationError: the file cannot be read, or lists too many.
    """
    try:
        lines = file.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{name}: the file cannot be read ({type(error).__name__})") from None
    return _contexts((line for line in lines if not line.startswith("#")), name)


def _contexts(lines: Iterable[str], name: str) -> list[str]:
    contexts = list(dict.fromkeys(stripped for line in lines if (stripped := line.strip())))
    if len(contexts) > MAX_WARM_CONTEXTS:
        raise ConfigurationError(f"{name}: lists more than {MAX_WARM_CONTEXTS} contexts")
    return contexts
