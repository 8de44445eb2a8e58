"""Opening files so that what is read is what was allowed: the descriptor is checked, not only the path."""

import os
import stat
from pathlib import Path

from bridge_tasks.content.allowed import real_path, root_of, why
from bridge_tasks.content.opened import Opened
from bridge_tasks.errors import ContentUnavailable
from bridge_tasks.models.content import FileContent
from bridge_tasks.settings import ContentSettings

_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""O_NONBLOCK: opening a named pipe must not wait for its writer."""


def open_file(content: FileContent, settings: ContentSettings) -> Opened:
    """Open a file that is under a root now that it is open, not only when it was looked at.

    Raises:
        InvalidRequest: it lies outside the allowed roots.
        ContentUnavailable: it is gone, unreadable, too large, or not what it was when the job was made.
    """
    real = real_path(content.path)
    try:
        descriptor = os.open(real, _NO_LINK)
    except OSError as error:
        raise ContentUnavailable(f"{content.path} {why(error)}") from error
    try:
        held = os.fstat(descriptor)
        _same_file(real, held, settings)
        if held.st_size > settings.max_bytes:
            raise ContentUnavailable(f"{content.path} is larger than the {settings.max_bytes} bytes allowed")
        if content.size not in (None, held.st_size) or content.modified not in (None, max(0, held.st_mtime_ns)):
            raise ContentUnavailable(f"{content.path} has changed since the job was made")
        return Opened(os.fdopen(descriptor, "rb"), held.st_size)
    except BaseException:
        os.close(descriptor)
        raise


def _same_file(path: Path, held: os.stat_result, settings: ContentSettings) -> None:
    """Check that what is open is a regular file, still at that place: a directory may have become a link."""
    if not stat.S_ISREG(held.st_mode):
        raise ContentUnavailable(f"{path} is not a regular file")
    again = real_path(path)
    root_of(again, settings)
    try:
        same = os.path.samestat(again.stat(), held)
    except OSError:
        same = False
    if not same:
        raise ContentUnavailable(f"{path} was moved while it was opened")
