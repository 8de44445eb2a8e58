"""What a job may refer to: files under the allowed roots, addresses on the allowed hosts, nothing else.

`vet` is asked before a message is sent, so that bad input is refused where it is made, and again in the worker.
It reads no content, and it says yes only for this moment: `files` looks again when it opens.
"""

import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from bridge_tasks.errors import InvalidRequest
from bridge_tasks.models.content import BlobContent, ContentRef, FileContent, UrlContent
from bridge_tasks.models.requests import refusal
from bridge_tasks.settings import ContentSettings


def file_content(path: str | os.PathLike[str], settings: ContentSettings) -> FileContent:
    """Refer to a file as it is now.

    Raises:
        InvalidRequest: it is missing, unreadable, not a regular file, too large or outside the allowed roots.
    """
    try:
        real = real_path(path)
        found = real.stat()
        regular = stat.S_ISREG(found.st_mode)
        content = FileContent(
            path=str(real),
            size=found.st_size if regular else None,
            modified=max(0, found.st_mtime_ns) if regular else None,
        )
    except ValidationError as error:
        raise refusal(error, "content") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InvalidRequest("content.path", why(error)) from None
    root_of(real, settings)
    _check_size(content, settings)
    _check_found(real, found, settings)
    return content


def vet(content: ContentRef, settings: ContentSettings) -> None:
    """Refuse content that is known to be out of reach of the workers.

    A file is looked at only where its root exists on this machine: a producer need not share the workers' disks.

    Raises:
        InvalidRequest: with the field and the reason.
    """
    match content:
        case FileContent():
            _vet_file(content, settings)
        case UrlContent():
            host = (urlsplit(content.url).hostname or "").lower()
            if host not in settings.hosts:
                raise InvalidRequest("content.url", "is not on an allowed host (BRIDGE_CONTENT__HOSTS)")
        case BlobContent() if content.size > settings.max_blob_bytes:
            raise InvalidRequest("content.size", f"exceeds {settings.max_blob_bytes} bytes")


def _vet_file(content: FileContent, settings: ContentSettings) -> None:
    real = real_path(content.path)
    root = root_of(real, settings)
    _check_size(content, settings)
    if not root.is_dir():
        return
    try:
        found = real.stat()
    except OSError as error:
        raise InvalidRequest("content.path", why(error)) from None
    _check_found(real, found, settings)


def _check_size(content: FileContent, settings: ContentSettings) -> None:
    if content.size is not None and content.size > settings.max_bytes:
        raise InvalidRequest("content.size", f"is {content.size} bytes; at most {settings.max_bytes} are hashed")


def _check_found(real: Path, found: os.stat_result, settings: ContentSettings) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise InvalidRequest("content.path", "is not a regular file")
    if found.st_size > settings.max_bytes:
        raise InvalidRequest("content.path", f"is {found.st_size} bytes; at most {settings.max_bytes} are hashed")
    if not os.access(real, os.R_OK):
        raise InvalidRequest("content.path", "is not readable")


def real_path(path: str | os.PathLike[str]) -> Path:
    """Follow all links; one that leads to itself is left for `stat` to refuse (`Path.resolve` raises on it)."""
    return Path(os.path.realpath(path))


def root_of(real: Path, settings: ContentSettings) -> Path:
    """Return the allowed root above a resolved path."""
    for root in map(Path, settings.roots):
        if real.is_relative_to(root):
            return root
    if not settings.roots:
        raise InvalidRequest("content.path", "is nowhere that jobs may read: BRIDGE_CONTENT__ROOTS is empty here")
    raise InvalidRequest("content.path", "is outside the allowed roots (BRIDGE_CONTENT__ROOTS)")


def why(error: Exception) -> str:
    """Say in a few words why a file cannot be had, without the operating system's details."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return "does not exist"
        case PermissionError():
            return "is not readable"
        case _:
            return "cannot be opened"
