"""Bulk runs from the submitter's side: paths become chunks, chunks messages, and a handle tells how it goes.

Nothing here holds more than one chunk of files, however many there are. What was submitted goes on without us.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from uuid import UUID, uuid4, uuid5

import redis

from bridge_tasks import correlation
from bridge_tasks.app import app
from bridge_tasks.content import file_content, vet
from bridge_tasks.errors import InvalidRequest, JobUnknown
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.packing import FileOutcome, RunFile
from bridge_tasks.ledger.runs import RunOptions, RunProgress
from bridge_tasks.messages import HEADER, ITEM
from bridge_tasks.models.content import ContentRef, FileContent, describe
from bridge_tasks.runtime import Runtime, current
from bridge_tasks.settings import load

Source = str | os.PathLike[str] | ContentRef

CHUNK_FILES = 100
CHUNK_BYTES = 4 * 1024 * 1024
"""Of one call of the service: a hundred usual files take it a tenth of a second, and a worker some memory."""

OUTSTANDING = 1000
"""Chunks that wait or are worked on at a time, of one run; beyond, the submitter waits."""

_PAUSE_SECONDS = 0.1
_NEWS_SECONDS = 1.0


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
        id: the run's. Submitted again after an error, the same object is the same run: it goes on where it was.
    """

    sources: Iterable[Source]
    options: RunOptions
    context: str | Callable[[Source], str]
    chunk_files: int = CHUNK_FILES
    chunk_bytes: int = CHUNK_BYTES
    correlation_id: UUID | str | None = None
    title: str = "files"
    id: str = field(default_factory=lambda: str(uuid4()))

    def files(self) -> Iterator[tuple[RunFile, int]]:
        """Give each source as the run keeps it, with its size; what is refused says why."""
        settings = load().content
        for source in self.sources:
            about = self.context if isinstance(self.context, str) else self.context(source)
            try:
                if isinstance(source, str | os.PathLike):
                    content: ContentRef = file_content(source, settings)
                else:
                    content = source
                    vet(content, settings)
            except InvalidRequest as error:
                label = os.fspath(source) if isinstance(source, str | os.PathLike) else describe(source)
                yield RunFile({"kind": "file", "path": label}, label, about, refused=str(error)), 0
                continue
            plain = content.model_dump(mode="json", exclude_none=True)
            label = content.path if isinstance(content, FileContent) else describe(content)
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


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was submitted.

    Attributes:
        id: what `bridge-tasks watch` and `status` take.
        correlation_id: finds all its tasks.
    """

    id: str
    correlation_id: str
    _runtime: Runtime = field(default_factory=current, repr=False, compare=False)

    def progress(self) -> RunProgress:
        """Return how it stands.

        Raises:
            JobUnknown: there is no record, or no longer.
        """
        found = self._runtime.run(self._runtime.runs.progress(self.id))
        if found is None:
            raise JobUnknown(f"there is no record of run {self.id}")
        return found

    def watch(self, timeout: float | None = None) -> Iterator[RunProgress]:
        """Give its progress as it changes, at least once a second, until it has ended.

        Raises:
            TimeoutError: it has not ended after `timeout` seconds.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        with self._runtime.ledger_redis.pubsub() as news:  # type: ignore[no-untyped-call] # redis-py's own gap
            subscribed = False
            while True:
                try:
                    if not subscribed:
                        news.subscribe(keys.RUN_NEWS + self.id)
                        subscribed = True
                    progress = self.progress()
                    yield progress
                    if progress.done:
                        return
                    _wait_for_news(news)
                except (redis.ConnectionError, redis.TimeoutError):
                    subscribed = False
                    news.reset()
                    if ends is not None and time.monotonic() > ends:
                        raise
                    time.sleep(_PAUSE_SECONDS)
                if ends is not None and time.monotonic() > ends:
                    raise TimeoutError(f"run {self.id} has not ended after {timeout} s")

    def wait(self, timeout: float | None = None) -> RunProgress:
        """Wait for its end.

        Raises:
            TimeoutError: it has not ended after `timeout` seconds.
        """
        *_, last = self.watch(timeout)
        return last

    def outcomes(self) -> Iterator[tuple[RunFile, FileOutcome]]:
        """Give its files in order, and what became of each so far; one chunk at a time is in memory."""
        for number in range(self.progress().chunks):
            yield from self._runtime.run(self._runtime.runs.outcomes(self.id, number))

    def cancel(self) -> None:
        """Stop it: what is worked on ends soon, nothing else begins."""
        self._runtime.run(self._runtime.runs.stop(self.id))


def _wait_for_news(news: "redis.client.PubSub") -> None:
    """Wait for a change, and take in all that are there: one look serves them."""
    message = news.get_message(ignore_subscribe_messages=True, timeout=_NEWS_SECONDS)
    until = time.monotonic() + _PAUSE_SECONDS
    while message is not None and time.monotonic() < until:
        message = news.get_message(ignore_subscribe_messages=True, timeout=_PAUSE_SECONDS)


def submit(run: BulkRun, *, resume: str | None = None, on_chunk: Callable[[Run, int], None] | None = None) -> Run:
    """Send a run's chunks to the queue.

    Args:
        run: what to stamp.
        resume: the id of a run whose submitter died: what it had sent is not sent again, the rest follows.
        on_chunk: called with the run and how many files there are so far, after each chunk.

    Returns:
        The run, all of it submitted.

    Raises:
        InvalidRequest: the run to resume has had other files; nothing was sent.
        JobUnknown: there is no record of it.
        kombu.exceptions.OperationalError, redis.RedisError: Redis is out of reach; submit the same object again
            (its sources must be such that can be read twice), or resume later.
    """
    runtime = current()
    begun = runtime.run(runtime.runs.progress(run.id)) if resume is None else None
    if resume is None and begun is None:
        name = run.id
        cid = correlation.parse(run.correlation_id or correlation.ensure())
        runtime.run(runtime.runs.create(name, cid, run.title, run.options))
        handle = Run(name, cid, runtime)
        sent = RunProgress(name, cid, run.title, *(0,) * 7, sealed=False, stopped=False, accepted=0.0, ended=None)
    else:
        sent = begun or Run(resume or run.id, "", runtime).progress()
        handle = Run(sent.id, sent.correlation_id, runtime)
    _Submitting(runtime, handle, run).go_on_from(sent, on_chunk)
    return handle


class _Submitting:
    """Sends the chunks of one run."""

    def __init__(self, runtime: Runtime, handle: Run, run: BulkRun) -> None:
        self._runtime = runtime
        self._handle = handle
        self._run = run
        self._seen = hashlib.sha256()
        self._files = 0

    def go_on_from(self, sent: RunProgress, on_chunk: Callable[[Run, int], None] | None) -> None:
        with correlation.bound(self._handle.correlation_id):
            for number, files in enumerate(self._run.chunks()):
                digest = self._digest(files)
                if number < sent.chunks:
                    if number == sent.chunks - 1 and digest != sent.digest:
                        raise InvalidRequest("run", "had other files, or they have changed: begin a new run")
                else:
                    self._add(number, files, digest)
                self._send(number)
                if on_chunk is not None:
                    on_chunk(self._handle, self._files)
                if not self._has_room(number):
                    break
            self._runtime.run(self._runtime.runs.seal(self._handle.id))

    def _digest(self, files: list[RunFile]) -> str:
        for file in files:
            self._seen.update(repr(file.signature).encode(errors="surrogatepass"))
        self._files += len(files)
        return self._seen.hexdigest()

    def _add(self, number: int, files: list[RunFile], digest: str) -> None:
        runs, name = self._runtime.runs, self._handle.id
        paths = [str(file.content.get("path") or "") if file.refused is None else "" for file in files]
        before = self._runtime.run(runs.latest(paths, name, number))
        known = [
            RunFile(f.content, f.label, f.context, f.refused, was) for f, was in zip(files, before, strict=True)
        ]
        self._runtime.run(runs.add(name, number, known, digest))

    def _send(self, number: int) -> None:
        """Send a chunk's message; its id is the same each time, so it is one job."""
        name = self._handle.id
        app.send_task(
            "bridge.stamp_chunk",
            kwargs={"run": name, "number": number},
            task_id=str(uuid5(UUID(name), str(number))),
            headers={HEADER: self._handle.correlation_id, ITEM: f"{name}|{number}|"},
            ignore_result=True,
        )

    def _has_room(self, number: int) -> bool:
        """Wait while too much of the run waits; whether it still goes on."""
        if number % 10:
            return True
        while True:
            progress = self._handle.progress()
            if progress.stopped:
                return False
            if progress.chunks - progress.settled <= OUTSTANDING:
                return True
            time.sleep(_PAUSE_SECONDS)
