"""`bridge-tasks probe`: is the worker of this machine, or this container, alive, and does it consume?

For an engine that asks every few seconds: it reads one file, asks nobody, and imports neither Celery nor settings.
"""

import time
from dataclasses import asdict
from pathlib import Path

from bridge_tasks import pulse
from bridge_tasks.cli.screen import show_json, show_lines


def probe(file: Path, *, alive: bool, silence: float, as_json: bool) -> int:
    """Show how the worker is; returns the exit status: 0 if it consumes, or, where `alive` is asked, lives."""
    found = pulse.diagnose(pulse.read(file), time.monotonic(), silence=silence)
    if as_json:
        show_json(asdict(found))
    else:
        state = "consuming" if found.consuming else "alive, not consuming" if found.alive else "not alive"
        show_lines(f"{state}: {found.reason}")
    return 0 if found.consuming or (alive and found.alive) else 1
