"""Content is hashed here as the service does it, in pieces, and only where the package for it is installed."""

import sys
from io import BytesIO

import pytest
from blake3 import blake3

from bridge_tasks.content import Opened, hashing
from bridge_tasks.errors import ConfigurationError


@pytest.mark.parametrize(
    ("content", "digest"),
    [
        (b"", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (b"hello", "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"),
        (b"Hello, World!", "288a86a79f20a3d6dccdca7713beaed178798296bdfa7913fa2a62d9727bf8f8"),
    ],
)
def test_the_hash_is_the_service_s(content: bytes, digest: str) -> None:
    assert hashing.blake3_of(content) == digest
    assert hashing.blake3_of(Opened(BytesIO(content), len(content))) == digest


def test_open_content_is_hashed_from_its_start_in_pieces_and_left_there() -> None:
    raw = bytes(range(256)) * 10_000

    class Watched(BytesIO):
        longest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(size)
            Watched.longest = max(Watched.longest, len(piece))
            return piece

    file = Watched(raw)
    file.seek(7)

    assert hashing.blake3_of(Opened(file, len(raw))) == blake3(raw).hexdigest()
    assert file.tell() == 0
    assert Watched.longest <= 1 << 20


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hashing.available()
    monkeypatch.setitem(sys.modules, "blake3", None)

    with pytest.raises(ConfigurationError, match=r"bridge-tasks\[local-hash\]"):
        hashing.blake3_of(b"")
