"""A bulk run as it is planned: sources become files with their size and time, files become chunks.

Sources are read one by one, as they are needed; this must never hold more than one chunk of them.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from uuid import UUID, uuid4

from pydantic import TypeAdapter, ValidationError

from bridge_tasks.content import file_content, vet
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.ledger.packing import RunFile
from bridge_tasks.ledger.run_records import RunOptions
from bridge_tasks.models.content import ContentRef, FileContent, describe
from bridge_tasks.models.fields import Context, FilePath
from bridge_tasks.models.requests import refusal
from bridge_tasks.settings import load

Source = str | os.PathLike[str] | ContentRef

CHUNK_FILES = 100
CHUNK_BYTES = 4 * 1024 * 1024
"""Of one call of the service: a hundred usual files take it a tenth of a second, and a worker some memory."""

_label: TypeAdapter[str] = TypeAdapter(FilePath)
_context: TypeAdapter[str] = TypeAdapter(Context)


@dataclass(frozen=True, slots=True)
class BulkRun:
    """Files to be stamped as one run; nothing is read or sent until it is submitted.

    Attributes:
        sources: paths, or references to content; read once, as they are needed.
        options: what they have in common.
        context: what intelligence is asked about: one text, or a function of the source.
        chunk_files: files in a chunk, at most.
        chunk_bytes: bytes of content in a chunk, at most; a larger file is a chunk of its own.
        correlation_id: what the run travels with.
        title: what to call it.
        explain: says why a source is refused, in the words of whoever submits it.
        id: the run's. Submitted again after an error, the same object is the same run: it goes on where it was.
    """

    sources: Iterable[Source]
    options: RunOptions
    context: str | Callable[[Source], str]
    chunk_files: int = CHUNK_FILES
    chunk_bytes: int = CHUNK_BYTES
    correlation_id: UUID | str | None = None
    title: str = "files"
    explain: Callable[[InvalidRequest, Source], str] = lambda error, _: str(error)
    id: str = field(default_factory=lambda: str(uuid4()))

    def files(self) -> Iterator[tuple[RunFile, int]]:
        """Give each source as the run keeps it, with its size in bytes; what is refused says why."""
        settings = load().content
        for source in self.sources:
            about = self.context if isinstance(self.context, str) else self.context(source)
            try:
                if isinstance(source, str | os.PathLike):
                    content: ContentRef = file_content(source, settings)
                else:
                    content = source
                    vet(content, settings)
                label = content.path if isinstance(content, FileContent) else describe(content)
                _check(label, about)
            except InvalidRequest as error:
                label = _shown(source)
                content_ = {"kind": "file", "path": label}
                yield RunFile(content_, label, "", refused=self.explain(error, source)), 0
                continue
            plain = content.model_dump(mode="json", exclude_none=True)
            yield RunFile(plain, label, about), getattr(content, "size", None) or 0

    def chunks(self) -> Iterator[list[RunFile]]:
        """Give the files in chunks."""
        chunk: list[RunFile] = []
        size = 0
        for one, bytes_ in self.files():
            if chunk and (len(chunk) >= self.chunk_files or size + bytes_ > self.chunk_bytes):
                yield chunk
                chunk, size = [], 0
            chunk.append(one)
            size += bytes_
        if chunk:
            yield chunk


def _check(label: str, context: str) -> None:
    """Refuse here what the job of a file that goes on alone would refuse."""
    try:
        _label.validate_python(label)
    except ValidationError as error:
        raise refusal(error, "content.path") from None
    _check_context(context)


@lru_cache(maxsize=1024)
def _check_context(context: str) -> None:
    try:
        _context.validate_python(context)
    except ValidationError as error:
        raise refusal(error, "context") from None


def _shown(source: Source) -> str:
    """How to name what was refused; its name may be no text at all."""
    name = os.fsdecode(source) if isinstance(source, str | os.PathLike) else describe(source)
    return name.encode(errors="backslashreplace").decode()
