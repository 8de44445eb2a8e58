"""Content that is open for reading, wherever it came from."""

from dataclasses import dataclass
from typing import IO, Self

from bridge_tasks.errors import ContentUnavailable


@dataclass(slots=True)
class Opened:
    """Content, open for reading from its start. A context manager that closes it."""

    file: IO[bytes]
    size: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def text(self, limit: int) -> str:
        """Return the content as text.

        Raises:
            ContentUnavailable: it is not UTF-8, or longer than `limit` bytes.
        """
        if self.size > limit:
            raise ContentUnavailable(
                f"the content is {self.size} bytes; text is stamped and validated up to {limit}"
            )
        self.file.seek(0)
        raw = self.file.read(limit)
        try:
            if b"\0" not in raw:  # valid UTF-8, but no text that anyone wrote; six times its size as JSON
                return raw.decode()
        except UnicodeDecodeError:
            pass
        raise ContentUnavailable("the content is not UTF-8 text, and only text is stamped and validated")
