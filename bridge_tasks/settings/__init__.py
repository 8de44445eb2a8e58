"""What can be set: `load()` reads the environment into one frozen tree. `fields` below `sections` below `tree`."""

from bridge_tasks.settings.sections import (
    ContentSettings,
    FlowerSettings,
    LedgerSettings,
    MetadataSettings,
    MetricsSettings,
    ServiceSettings,
)
from bridge_tasks.settings.tree import ENV_FILE, Settings, load, own_file

__all__ = [
    "ENV_FILE",
    "ContentSettings",
    "FlowerSettings",
    "LedgerSettings",
    "MetadataSettings",
    "MetricsSettings",
    "ServiceSettings",
    "Settings",
    "load",
    "own_file",
]
