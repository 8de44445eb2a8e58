"""The hash of content, computed here: the same BLAKE3 as the service's, where the `blake3` package is installed.

It saves a call, not trust: what a stamp says is the service's own hash. Never reads more than a piece into memory.
"""

import itertools
from dataclasses import dataclass, field
from importlib.util import find_spec

from bridge_tasks.content.opened import Opened
from bridge_tasks.errors import ClientError, ConfigurationError

_PIECE = 1 << 20
_SAMPLE = 100


def available() -> bool:
    """Tell whether hashes can be computed here."""
    return find_spec("blake3") is not None


@dataclass(frozen=True, slots=True)
class Sample:
    """Which of the hashes that a process computes the service is asked for too: the first, then one in 100."""

    _count: "itertools.count[int]" = field(default_factory=itertools.count)

    def is_due(self) -> bool:
        """Count a hash, and say whether to check it. Thread-safe."""
        return next(self._count) % _SAMPLE == 0


def blake3_of(content: Opened | bytes) -> str:
    """Return the BLAKE3 digest of all of `content`, which is left at its start: 64 lower-case hex characters.

    Raises:
        ConfigurationError: the `blake3` package is not installed.
    """
    try:
        from blake3 import blake3  # noqa: PLC0415 - an extra, and seldom needed
    except ImportError:
        raise ConfigurationError(
            "hashing here needs the blake3 package: pip install 'bridge-tasks[local-hash]'"
        ) from None
    digest = blake3()
    if isinstance(content, bytes):
        digest.update(content)
    else:
        content.file.seek(0)
        while piece := content.file.read(_PIECE):
            digest.update(piece)
        content.file.seek(0)
    return str(digest.hexdigest())


def confirm(computed: str, told: str) -> None:
    """Hold a hash that was computed here against the service's.

    Raises:
        ClientError: it hashes otherwise than we do; none of ours is worth anything.
    """
    if told != computed:
        raise ClientError("the service's hash of a file is not the one computed here: use hashing='service'")
