"""What our tasks answer about files: small, plain, and without a byte of their content."""

from typing import Any

from pydantic import Field

from bridge_tasks.models.fields import FileHash, Frozen


class Hashed(Frozen):
    """A hash of content: BLAKE3, 64 lowercase hex characters, as the service computed it."""

    hash: FileHash
    file_size_bytes: int
    execution_time_ms: float = 0.0
    performance_grade: str | None = None


class Enriched(Frozen):
    """Intelligence about a context, and the hash it travels with in a chain (None when asked for alone)."""

    intelligence: dict[str, Any]
    patterns: list[str]
    relationships: list[dict[str, Any]]
    metadata: dict[str, Any]
    confidence: dict[str, float]
    degraded: bool
    context: str
    hashed: Hashed | None = None


class Stamped(Frozen):
    """A stamp that stands.

    `hash` is of the bytes as they are; `stamp_hash` is the service's own, over the text without stamps and
    outer white space, so the two often differ. `degraded` says that its intelligence is a fallback.
    """

    path: str
    hash: str
    file_size: int
    namespace: str
    stamp_id: str | None = None
    stamp_hash: str | None = None
    stamp: str | None = None
    created_at: str | None = None
    degraded: bool = False


class Validated(Frozen):
    """Whether content still is what its stamps say.

    `source` tells where the stamps were: `embedded` in the text, `registry` (the service holds a stamp for
    this very content), or `none`, in which case `valid` is false and nothing is wrong but the lack of a stamp.
    """

    valid: bool
    source: str
    stamps_found: int
    valid_stamps: int
    invalid_stamps: int
    current_hash: str | None = None
    stamp_id: str | None = None
    details: list[dict[str, Any]] = Field(default_factory=list)


class BatchStamped(Frozen):
    """What became of each item of a batch, in request order."""

    total: int
    successful: int
    failed: int
    results: list[dict[str, Any]]


class ChunkStamped(Frozen):
    """How many of a chunk's files ended how; `alone` are those that go on as jobs of their own."""

    succeeded: int
    failed: int
    cancelled: int
    alone: int


class ServiceHealth(Frozen):
    """One service as a worker sees it."""

    healthy: bool
    status: str
    circuit: str
    error: str | None = None
