"""How an answer lies in Redis: a checksum, then JSON, compressed where that pays.

The checksum covers the question's name too: an entry cut, altered, or put in another's place does not read.
Decompressing yields at most what is asked for, whatever the entry claims. Nothing unreadable is ever returned.
"""

import zlib

_CHECKSUM_BYTES = 4
_LEVEL = 1  # a third of the time of the usual 6, for a few per cent more bytes


def encode(key: str, packed: bytes, *, refusal: bool, compress_from: int) -> tuple[str, bytes]:
    """Return the flags (kind, coding) and the payload of an entry."""
    kind, coding, body = "r" if refusal else "a", "p", packed
    if len(packed) >= compress_from:
        smaller = zlib.compress(packed, _LEVEL)
        if len(smaller) < len(packed):
            coding, body = "z", smaller
    flags = kind + coding
    return flags, _checksum(key, flags, body) + body


def decode(key: str, flags: str, payload: bytes, limit: int) -> tuple[bytes, bool] | None:
    """Return the JSON, and whether it is a refusal; None for what cannot be read or exceeds `limit` bytes."""
    body = payload[_CHECKSUM_BYTES:]
    if flags not in {"ap", "az", "rp", "rz"} or payload[:_CHECKSUM_BYTES] != _checksum(key, flags, body):
        return None
    if flags[1] == "z":
        inflate = zlib.decompressobj()
        try:
            body = inflate.decompress(body, limit + 1)
        except zlib.error:
            return None
        if not inflate.eof or inflate.unused_data:
            return None
    return (body, flags[0] == "r") if len(body) <= limit else None


def _checksum(key: str, flags: str, body: bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(f"{key}{flags}".encode())).to_bytes(_CHECKSUM_BYTES, "big")
