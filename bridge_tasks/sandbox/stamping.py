"""What the metadata service really does to bytes and texts: BLAKE3, stamping, validation.

Knows nothing of HTTP or of where stamps are kept.
"""

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal
from uuid import uuid4

from blake3 import blake3

from bridge_tasks.models.stamp_text import (
    StampText,
    attach,
    clean,
    find_stamps,
    render_lightweight,
    render_rich,
    without_documented,
)

StampType = Literal["lightweight", "rich"]

TARGET_PROTOCOL = "O.N.E.v0.1"

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Stamped:
    """A fresh stamp; `file_hash` is the hash of the cleaned content, `metadata` what is stored with it."""

    file_hash: str
    stamp: str
    stamp_type: StampType
    stamped_content: str
    content_type: str | None
    file_size: int
    metadata: dict[str, Any]

    def answering(self, stamp: str | None, content: str) -> "Stamped":
        """Return this with the `stamp` that was made for the same `content` before, if it is another."""
        if stamp is None or stamp == self.stamp:
            return self
        return replace(self, stamp=stamp, stamped_content=attach(stamp, self.stamp_type, content))


@dataclass(frozen=True, slots=True)
class CheckedStamp:
    """One stamp found in a text, and whether its hash is that of the text it covers."""

    stamp: StampText
    current_hash: str
    is_valid: bool


@dataclass(frozen=True, slots=True)
class Validation:
    """All stamps of a text; `current_hash` is the hash of the cleaned text."""

    current_hash: str
    stamps: tuple[CheckedStamp, ...]

    @property
    def is_valid(self) -> bool:
        """Whether there is a stamp and none is stale."""
        return bool(self.stamps) and all(stamp.is_valid for stamp in self.stamps)


def hash_text(text: str) -> str:
    """Return the BLAKE3 digest of `text` in UTF-8: 64 lower-case hexadecimal characters."""
    return blake3(text.encode()).hexdigest()


def hash_file(file: BinaryIO) -> str:
    """Return the BLAKE3 digest of an open file, one mebibyte in memory at a time."""
    hasher = blake3()
    while chunk := file.read(_CHUNK):
        hasher.update(chunk)
    return hasher.hexdigest()


def stamp_content(
    content: str, stamp_type: StampType, metadata: Mapping[str, Any], file_path: str | None
) -> Stamped:
    """Stamp `content`, with a new uid and the present time unless `metadata` brings its own.

    Raises:
        ValueError: a value in `metadata` does not fit the stamp's grammar.
    """
    digest = hash_text(clean(content))
    file_size = len(content.encode())
    uid = _text(metadata, "uid") or str(uuid4())
    timestamp = _text(metadata, "timestamp") or datetime.now(UTC).isoformat()
    content_type = _text(metadata, "content_type") or mimetypes.guess_type(file_path or "")[0]
    if stamp_type == "lightweight":
        stamp = render_lightweight(
            digest,
            uid=uid,
            timestamp=timestamp,
            author=_text(metadata, "author"),
            version=_text(metadata, "version"),
        )
    else:
        stamp = render_rich(
            digest,
            uid=uid,
            timestamp=timestamp,
            file_path=file_path,
            file_size=file_size,
            content_type=_text(metadata, "content_type"),
            protocol_version=_text(metadata, "protocol_version") or "1.0",
        )
    return Stamped(
        file_hash=digest,
        stamp=stamp,
        stamp_type=stamp_type,
        stamped_content=attach(stamp, stamp_type, content),
        content_type=content_type,
        file_size=file_size,
        metadata={**metadata, "file_path": file_path, "file_size": file_size},
    )


def validate_content(content: str, expected_hash: str | None = None) -> Validation:
    """Check every stamp in `content`; with `expected_hash`, a stamp must also carry exactly that hash."""
    current = hash_text(clean(content))
    stamps = find_stamps(content)
    documented = any(stamp.kind == "documented" for stamp in stamps)
    current_by_kind = {
        "lightweight": current,
        "rich": current,
        "documented": hash_text(clean(without_documented(content))) if documented else current,
    }
    return Validation(
        current_hash=current,
        stamps=tuple(
            CheckedStamp(
                stamp,
                current_by_kind[stamp.kind],
                stamp.hash == current_by_kind[stamp.kind] and expected_hash in (None, stamp.hash),
            )
            for stamp in stamps
        ),
    )


def judge_protocol(content: str, target_protocol: str, namespace: str) -> dict[str, Any]:
    """Judge whether `content` follows the stamping protocol, as `/validate-protocol` answers it.

    The known service looks for the documented comment only, which its own stamps never are; this one accepts
    every kind that it recognises.
    """
    kinds = {stamp.kind for stamp in find_stamps(content)}
    issues: list[str] = []
    level = "full"
    if not kinds and "<!-- METADATA_STAMP:" not in content:
        issues.append("no metadata stamp found")
        level = "none"
    typed = kinds & {"lightweight", "rich"} or "lightweight" in content or "rich" in content
    if target_protocol == TARGET_PROTOCOL and not typed:
        issues.append("no stamp type found")
        level = "partial" if level == "full" else "none"
    unnamed = namespace != "default" and f"namespace:{namespace}" not in content
    return {
        "is_valid": not issues,
        "protocol_version": "1.0",
        "compliance_level": level,
        "issues": issues,
        "recommendations": ["name the namespace in the content"] if unnamed else [],
    }


def _text(metadata: Mapping[str, Any], key: str) -> str | None:
    """Return a metadata value as the stamp prints it; None where there is none."""
    value = metadata.get(key)
    return None if value is None else str(value)
