"""The files of a run as they lie in Redis: chunk by chunk, compressed, about a hundred bytes for each. Pure."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson

from bridge_tasks.ledger.records import Outcome, State

_LEVEL = 1  # paths repeat so much that the fastest level is nearly the best


@dataclass(frozen=True, slots=True)
class RunFile:
    """One file, or other content, of a run.

    Attributes:
        content: where its bytes are (models.content, as plain JSON).
        label: how its stamp names it.
        context: what intelligence is asked about.
        refused: why it was refused when the run was submitted, if it was.
        before: where its latest outcome of an earlier run is: `run|chunk|index`.
    """

    content: dict[str, Any]
    label: str
    context: str
    refused: str | None = None
    before: str | None = None

    @property
    def signature(self) -> list[Any]:
        """What makes it the same work as in an earlier run."""
        return [self.content, self.label, self.context]


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one file; `state` is None while it goes on. An `error` is told as (type, message)."""

    state: State | None
    hash: str | None = None
    stamp_id: str | None = None
    stamp_hash: str | None = None
    degraded: bool = False
    error: tuple[str, str] | None = None
    alone: bool = False
    """It goes on, or went, as a job of its own."""

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """Read the outcome of the job that did it alone."""
        if outcome.error is not None:
            error = (type(outcome.error).__name__, str(outcome.error))
            return cls(outcome.state, error=error, alone=True)
        told = outcome.result or {}
        return cls(
            outcome.state,
            told.get("hash"),
            told.get("stamp_id"),
            told.get("stamp_hash"),
            bool(told.get("degraded")),
            alone=True,
        )


def pack_files(files: Sequence[RunFile]) -> bytes:
    """Write a chunk's files; equal contexts are written once."""
    contexts = list(dict.fromkeys(file.context for file in files))
    rows: list[list[Any]] = [[f.content, f.label, contexts.index(f.context), f.refused, f.before] for f in files]
    for row in rows:
        content = row[0]
        if isinstance(content, dict) and content.get("kind") == "file":
            row[0] = [content["path"], content.get("size"), content.get("modified")]
            if row[1] == content["path"]:
                row[1] = None
    return zlib.compress(orjson.dumps([contexts, rows]), _LEVEL)


def unpack_files(raw: bytes) -> list[RunFile]:
    """Read them."""
    contexts, rows = orjson.loads(zlib.decompress(raw))
    files = []
    for content, label, context, refused, before in rows:
        whole = content
        if isinstance(content, list):
            told = zip(("path", "size", "modified"), content, strict=True)
            whole = {"kind": "file"} | {name: value for name, value in told if value is not None}
        files.append(RunFile(whole, label or whole.get("path", ""), contexts[context], refused, before))
    return files


def pack_outcomes(outcomes: Sequence[FileOutcome]) -> bytes:
    """Write what became of a chunk's files."""
    rows = [[o.state, o.hash, o.stamp_id, o.stamp_hash, int(o.degraded), o.error, int(o.alone)] for o in outcomes]
    return zlib.compress(orjson.dumps(rows), _LEVEL)


def unpack_outcomes(raw: bytes) -> list[FileOutcome]:
    """Read it."""
    return [
        FileOutcome(
            state, digest, stamp_id, stamp_hash, bool(degraded), tuple(error) if error else None, bool(alone)
        )
        for state, digest, stamp_id, stamp_hash, degraded, error, alone in orjson.loads(zlib.decompress(raw))
    ]
