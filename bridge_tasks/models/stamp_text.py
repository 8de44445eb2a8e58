"""The grammar of stamps: how a stamp is written into a text, found in it and taken out again.

Pure text in, text out: no hashing, no clock, no chance. Every function takes time linear in its input, whatever
the input: each expression consumes without backtracking, and regions are paired by one pass over their markers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

StampKind = Literal["lightweight", "rich", "documented"]
"""`lightweight`: one `# ONEX:` line. `rich`: a comment block. `documented`: the comment the API's manual shows."""

_LIGHTWEIGHT = re.compile(
    r"# ONEX:uid=(?P<uid>[A-Za-z0-9_-]++),hash=(?P<hash>[A-Za-z0-9]++),ts=(?P<timestamp>[0-9T:\-+.]++)[^\n]*+"
)
_RICH_START = re.compile(r"<!--\s*+ONEX_METADATA_START\s*+-->")
_RICH_END = re.compile(r"<!--\s*+ONEX_METADATA_END\s*+-->")
_DOCUMENTED = re.compile(r"<!--\s*+METADATA_STAMP:[A-Za-z0-9_-]++:blake3:(?P<hash>[A-Za-z0-9]++)\s*+-->")
_BLANK_RUN = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class StampText:
    """One stamp as it stands in a text.

    `hash` is None for a rich block without a hash line. What the hash covers depends on the kind: for
    `lightweight` and `rich` it is `clean(text)`; for `documented` it is `clean(without_documented(text))`,
    since that comment, unlike the others, is ordinary content to `clean`.
    """

    kind: StampKind
    hash: str | None
    uid: str | None
    timestamp: str | None
    start: int
    end: int


def find_stamps(text: str) -> list[StampText]:
    """List the stamps in `text`: the lightweight ones in order, then the rich ones, then the documented ones."""
    return [*_find_lightweight(text), *_find_rich(text), *_find_documented(text)]


def has_stamp(text: str) -> bool:
    """Tell whether `text` carries at least one stamp of any kind."""
    finders = (_find_lightweight, _find_rich, _find_documented)
    return any(next(find(text), None) is not None for find in finders)


def clean(text: str) -> str:
    """Return what a lightweight or rich stamp's hash covers.

    Deletes the lightweight stamps, then the rich regions, then folds each run of three or more newlines into
    two and strips both ends. Documented stamps stay: the known service hashes them like any other text.
    """
    without_lines = _LIGHTWEIGHT.sub("", text)
    without_regions = _cut(without_lines, list(_rich_spans(without_lines)))
    return _BLANK_RUN.sub("\n\n", without_regions).strip()


def without_documented(text: str) -> str:
    """Return `text` without its documented stamps; see `StampText` for why `clean` leaves them."""
    return _DOCUMENTED.sub("", text)


def render_lightweight(
    digest: str, *, uid: str, timestamp: str, author: str | None = None, version: str | None = None
) -> str:
    """Write the one-line stamp for `digest`.

    Raises:
        ValueError: when a value does not fit the grammar, so that the stamp would not be found again.
    """
    tail = "".join(f",{key}={value}" for key, value in (("author", author), ("v", version)) if value is not None)
    return _readable(f"# ONEX:uid={uid},hash={digest},ts={timestamp}{tail}", "lightweight", digest)


def render_rich(
    digest: str,
    *,
    uid: str,
    timestamp: str,
    file_path: str | None,
    file_size: int,
    content_type: str | None = None,
    protocol_version: str = "1.0",
) -> str:
    """Write the comment block for `digest`; `file_size` is in bytes.

    Raises:
        ValueError: when a value does not fit the grammar, so that the stamp would not be found again.
    """
    fields = {
        "uid": uid,
        "hash": digest,
        "timestamp": timestamp,
        "protocol_version": protocol_version,
        "file_path": file_path,
        "file_size": file_size,
    }
    if content_type is not None:
        fields["content_type"] = content_type
    lines = [
        "<!-- ONEX_METADATA_START -->",
        "<!-- ONEX Metadata Stamp",
        *(f"  {key}: {value}" for key, value in fields.items()),
        "  integrity:",
        "    algorithm: BLAKE3",
        f"    hash: {digest}",
        "-->",
        "<!-- ONEX_METADATA_END -->",
    ]
    return _readable("\n".join(lines), "rich", digest)


def attach(stamp_text: str, kind: StampKind, content: str) -> str:
    """Put a stamp where its kind goes: a line before the content, or a block or comment after it.

    Stamps that `content` already carries stay, so stamping again adds one more.
    """
    if kind == "lightweight":
        return f"{stamp_text}\n{content}"
    return f"{content}\n\n{stamp_text}" if kind == "rich" else f"{content}\n{stamp_text}"


def _find_lightweight(text: str) -> Iterator[StampText]:
    for match in _LIGHTWEIGHT.finditer(text):
        yield StampText("lightweight", match["hash"], match["uid"], match["timestamp"], *match.span())


def _find_rich(text: str) -> Iterator[StampText]:
    for start, end in _rich_spans(text):
        fields = _rich_fields(text[start:end])
        yield StampText("rich", fields.get("hash"), fields.get("uid"), fields.get("timestamp"), start, end)


def _find_documented(text: str) -> Iterator[StampText]:
    for match in _DOCUMENTED.finditer(text):
        yield StampText("documented", match["hash"], None, None, *match.span())


def _rich_spans(text: str) -> Iterator[tuple[int, int]]:
    """Pair each opening marker with the nearest closing one.

    A single lazy expression would scan to the end once per opening marker that nothing closes; here the first
    unclosed one ends the search.
    """
    position = 0
    while (opening := _RICH_START.search(text, position)) and (closing := _RICH_END.search(text, opening.end())):
        yield opening.start(), closing.end()
        position = closing.end()


def _rich_fields(block: str) -> dict[str, str]:
    """Read `key: value` lines; a repeated key keeps its last value, so the hash under `integrity` decides."""
    fields = {}
    for line in map(str.strip, block.split("\n")):
        key, _, value = line.partition(":")
        if not line.startswith("<!--") and key.strip() and value.strip():
            fields[key.strip()] = value.strip()
    return fields


def _cut(text: str, spans: list[tuple[int, int]]) -> str:
    starts = [0, *(end for _, end in spans)]
    ends = [*(start for start, _ in spans), len(text)]
    return "".join(text[start:end] for start, end in zip(starts, ends, strict=True))


def _readable(rendered: str, kind: StampKind, digest: str) -> str:
    """Return `rendered` if it reads back as exactly one stamp; a value with a line break would not, say."""
    found = [stamp for stamp in find_stamps(rendered) if stamp.kind == kind]
    if len(found) != 1 or (found[0].hash, found[0].start, found[0].end) != (digest, 0, len(rendered)):
        raise ValueError(f"a value does not fit the grammar of a {kind} stamp")
    return rendered
