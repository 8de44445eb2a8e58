"""Content that is open for reading, wherever it came from."""

from dataclasses import dataclass
from typing import IO, Self


@dataclass(slots=True)
class Opened:
    """Content, open for reading from its start. A context manager that closes it."""

    file: IO[bytes]
    size: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def text(self, limit: int) -> str | None:
        """Return the content as text; None where it is not UTF-8 or longer than `limit` bytes."""
        if self.size > limit:
            return None
        self.file.seek(0)
        try:
            return self.file.read(limit).decode()
        except UnicodeDecodeError:
            return None
