"""What is known of a bulk run besides its files: what they have in common, and how far they are. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.models.fields import Hashing

RunState = Literal["submitting", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What all files of a run have in common.

    Attributes:
        namespace: where their stamps belong.
        stamp_data: JSON kept with each stamp.
        content_type: MIME type, if it is one for all.
        hashing: who hashes: the service, or the worker (the same BLAKE3, a sample checked against the service).
        force: stamp what an earlier run has stamped, too.
    """

    namespace: str
    stamp_data: dict[str, Any] = field(default_factory=dict)
    content_type: str | None = None
    hashing: Hashing = "service"
    force: bool = False

    @property
    def signature(self) -> list[Any]:
        """What must be equal for a file to be the same work in another run."""
        return [self.namespace, self.stamp_data, self.content_type]


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How a run stands. `total` grows while it is submitted; times are seconds since the epoch, by Redis."""

    id: str
    correlation_id: str
    title: str
    total: int
    succeeded: int
    failed: int
    cancelled: int
    degraded: int
    chunks: int
    settled: int
    sealed: bool
    stopped: bool
    accepted: float
    ended: float | None
    digest: str = field(default="", repr=False)
    options: RunOptions | None = field(default=None, repr=False)

    @property
    def over(self) -> int:
        """Files of which the end is known."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def waiting(self) -> int:
        """Files that have not ended."""
        return self.total - self.over

    @property
    def state(self) -> RunState:
        """In one word."""
        if self.stopped:
            return "cancelled"
        if self.ended is None:
            return "running" if self.sealed else "submitting"
        return "succeeded" if self.succeeded == self.total else "failed"

    @property
    def unsealed(self) -> bool:
        """Whether more files may come: its submitter is at it, or is gone. The record does not tell which."""
        return not self.sealed and not self.stopped

    @property
    def done(self) -> bool:
        """Whether nothing more will happen."""
        return self.ended is not None

    @classmethod
    def loads(cls, name: str, known: Mapping[str, str]) -> "RunProgress":
        """Read what Redis holds."""
        count = {key: int(known.get(key, 0)) for key in _COUNTS}
        return cls(
            id=name,
            correlation_id=known["correlation_id"],
            title=known["title"],
            sealed="sealed" in known,
            stopped="stopped" in known,
            accepted=int(known["accepted"]) / MICROSECONDS,
            ended=int(known["ended"]) / MICROSECONDS if "ended" in known else None,
            digest=known.get("digest", ""),
            options=RunOptions(**orjson.loads(known["options"])),
            **count,
        )


_COUNTS = ("total", "succeeded", "failed", "cancelled", "degraded", "chunks", "settled")
