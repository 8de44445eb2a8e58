"""Looks over the deployment before a worker takes its first job, and keeps one from starting that would lose some.

One clear line, and an exit status that a supervisor can tell from a crash. Redis being away keeps nobody: a worker
waits for it.
"""

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final

from bridge_tasks.checking import Severity, found, stopping
from bridge_tasks.checking.gathering import gather
from bridge_tasks.settings import Settings

EX_CONFIG: Final = 78
"""sysexits.h: something is wrong in the configuration; starting again changes nothing."""

_log = logging.getLogger(__name__)


def look_over(settings: Settings, conf: Mapping[str, Any]) -> None:
    """Let a worker start, or not, as BRIDGE_CHECK says.

    Raises:
        SystemExit: what was found is fatal.
    """
    if settings.check == "off":
        return
    try:
        findings = found(gather(settings, conf), settings.check_accept)
    except Exception:  # noqa: BLE001 - a fault in looking must not stop a fleet
        _log.exception("the configuration was not checked")
        return
    bad = stopping(findings)
    mild = [one.id for one in findings if one.severity is Severity.WARNING]
    if mild:
        _log.warning("configuration: %s (bridge-tasks check)", ", ".join(mild))
    if not bad:
        return
    first, *more = bad
    others = f" And {', '.join(one.id for one in more)}." if more else ""
    line = f"{first.id}: {first.what} {first.why} Fix: {first.fix}.{others}"
    if settings.check == "warn":
        _log.error("configuration: %s", line)
        return
    sys.stderr.write(f"bridge-tasks: no worker starts like this: {line} See: bridge-tasks check\n")
    raise SystemExit(EX_CONFIG)
