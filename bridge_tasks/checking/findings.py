"""A finding: what is wrong, why that matters, and the line that puts it right. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is.

    A fatal one loses jobs, runs what others sent, or lets nothing work: no worker starts. A warning is a risk that
    somebody may have to bear. A note is worth knowing.
    """

    FATAL = "fatal"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One of them.

    Attributes:
        id: by which people name it, and accept it (BRIDGE_CHECK_ACCEPT).
        severity: how bad.
        what: what is set, or missing.
        why: what comes of it.
        fix: a line to paste.
    """

    id: str
    severity: Severity
    what: str
    why: str
    fix: str


def fatal(name: str, what: str, why: str, fix: str) -> Finding:
    """Find what must not go on."""
    return Finding(name, Severity.FATAL, what, why, fix)


def warning(name: str, what: str, why: str, fix: str) -> Finding:
    """Find a risk."""
    return Finding(name, Severity.WARNING, what, why, fix)


def note(name: str, what: str, why: str, fix: str) -> Finding:
    """Find what is worth knowing."""
    return Finding(name, Severity.NOTE, what, why, fix)
