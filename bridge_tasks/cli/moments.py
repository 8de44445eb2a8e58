"""Times as people write and read them: `10m`, `3 min ago`, `2026-11-25 02:13:47`, in local time. Pure."""

import re
from datetime import datetime

from bridge_tasks.errors import InvalidRequest

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def moment(told: str | None, name: str, now: float) -> float | None:
    """Read a time: `90s`, `10m`, `2h`, `1d` (so long ago), or a date, perhaps with a time, in local time.

    Args:
        told: what was typed; None gives None.
        name: what people call it, for messages.
        now: seconds since the epoch.

    Raises:
        InvalidRequest: it is neither.
    """
    if told is None:
        return None
    if ago := _AGO.fullmatch(told):
        return now - float(ago[1]) * _SECONDS[ago[2]]
    try:
        return datetime.fromisoformat(told).astimezone().timestamp()
    except ValueError:
        raise InvalidRequest(name, "must be like 10m, 2h, 1d, or a date like 2026-01-31T12:00") from None


def clock(seconds: float) -> str:
    """Write a time of the epoch in local time."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def lasting(seconds: float) -> str:
    """Write how long something takes: `0.4 s`, `12 s`, `3 min`, `2 h`, `4 days`."""
    seconds = max(0.0, seconds)
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"  # noqa: PLR2004 - two digits are enough
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.0f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} days"


def ago(seconds: float) -> str:
    """Write how long ago something was."""
    return f"{lasting(seconds)} ago"
