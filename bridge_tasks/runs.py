"""Bulk runs from the submitter's side: chunks become messages, and a handle tells how it goes.

Nothing here holds more than one chunk of files, however many there are. What was submitted goes on without us.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import redis

from bridge_tasks import correlation
from bridge_tasks.app import app
from bridge_tasks.chunking import BulkRun
from bridge_tasks.errors import InvalidRequest, JobUnknown
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.packing import FileOutcome, RunFile
from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.ledger.runs import chunk_job
from bridge_tasks.messages import HEADER, ITEM
from bridge_tasks.runtime import Runtime, current

OUTSTANDING = 1000
"""Chunks that wait or are worked on at a time, of one run; beyond, the submitter waits."""

_LOOK_EVERY = 10
"""Chunks between two looks at how many are outstanding."""

_PAUSE_SECONDS = 0.1
_NEWS_SECONDS = 1.0


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

    def watch(
        self, timeout: float | None = None, *, on_away: Callable[[], None] | None = None
    ) -> Iterator[RunProgress]:
        """Give its progress as it changes, at least once a second, until it has ended.

        Args:
            timeout: seconds; None waits for ever.
            on_away: called each time that Redis was tried and is out of reach; meanwhile no progress is given.

        Raises:
            TimeoutError: it has not ended after `timeout` seconds.
            redis.ConnectionError, redis.TimeoutError: the same, and Redis is out of reach.
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
                    if on_away is not None:
                        on_away()
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
        for progress in self.watch(timeout):
            if progress.done:
                return progress
        raise AssertionError("a watch ends with the run, or raises")

    def outcomes(self) -> Iterator[tuple[RunFile, FileOutcome]]:
        """Give its files in order, and what became of each so far; one chunk at a time is in memory."""
        for number in range(self.progress().chunks):
            yield from self._runtime.run(self._runtime.runs.outcomes(self.id, number))

    def cancel(self) -> bool:
        """Stop it: what is worked on ends soon, nothing else begins. Whether it had not ended."""
        return self._runtime.run(self._runtime.runs.stop(self.id))


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
        resume: the id of a run whose submitter died: what it had sent is not sent again, the rest follows. Whether
            earlier stamps stand, and who hashes, is as it was begun.
        on_chunk: called with the run and how many files there are so far: at the beginning, after each chunk, and
            now and then while too much of the run waits.

    Returns:
        The run, all of it submitted, unless it was cancelled meanwhile.

    Raises:
        InvalidRequest: the run to resume has had other files or options, or was cancelled; nothing was sent.
        JobUnknown: there is no record of it.
        kombu.exceptions.OperationalError, redis.RedisError: Redis is out of reach; submit the same object again
            (its sources must be such that can be read twice), or resume later.
    """
    runtime = current()
    begun = runtime.run(runtime.runs.progress(resume or run.id))
    if begun is None and resume is None:
        cid = correlation.parse(run.correlation_id or correlation.ensure())
        runtime.run(runtime.submitted_runs.create(run.id, cid, run.title, run.options))
        begun = Run(run.id, cid, runtime).progress()
    if begun is None:
        raise JobUnknown(f"there is no record of run {resume}")
    if begun.stopped:
        raise InvalidRequest("run", "was cancelled: begin a new one")
    if begun.options is None or begun.options.signature != run.options.signature:
        raise InvalidRequest("run", "was begun with another namespace, stamp_data or content_type")
    submitting = _Submitting(runtime, run, begun, on_chunk)
    with correlation.bound(begun.correlation_id):
        submitting.go_on()
    return submitting.handle


class _Submitting:
    """Sends the chunks of one run that were not sent yet; the last that was, too: its message may be missing."""

    def __init__(
        self, runtime: Runtime, run: BulkRun, begun: RunProgress, on_chunk: Callable[[Run, int], None] | None
    ) -> None:
        self.handle = Run(begun.id, begun.correlation_id, runtime)
        self._runtime = runtime
        self._run = run
        self._begun = begun
        self._on_chunk = on_chunk
        self._seen = hashlib.sha256()
        self._files = 0

    def go_on(self) -> None:
        self._tell()
        chunks = 0
        for number, files in enumerate(self._run.chunks()):
            chunks = number + 1
            digest = self._digest(files)
            if chunks < self._begun.chunks:
                continue
            if chunks == self._begun.chunks:
                if digest != self._begun.digest:
                    raise _other_files()
            elif not self._add(number, files, digest):
                return
            self._send(number)
            self._tell()
            if chunks % _LOOK_EVERY == 0 and not self._has_room():
                return
        if chunks < self._begun.chunks:
            raise _other_files()
        self._runtime.run(self._runtime.submitted_runs.seal(self.handle.id))

    def _tell(self) -> None:
        if self._on_chunk is not None:
            self._on_chunk(self.handle, self._files)

    def _digest(self, files: list[RunFile]) -> str:
        for file in files:
            self._seen.update(repr(file.signature).encode(errors="surrogatepass"))
        self._files += len(files)
        return self._seen.hexdigest()

    def _add(self, number: int, files: list[RunFile], digest: str) -> bool:
        """Add a chunk to the record; false where the run was cancelled."""
        runs = self._runtime.submitted_runs
        before = self._runtime.run(runs.before(files))
        known = [replace(file, before=was) for file, was in zip(files, before, strict=True)]
        added = self._runtime.run(runs.add(self.handle.id, number, known, digest))
        if added == "unknown":
            raise JobUnknown(f"there is no record of run {self.handle.id}")
        if added == "refused" and not self.handle.progress().stopped:
            raise _other_files()
        return added != "refused"

    def _send(self, number: int) -> None:
        name = self.handle.id
        app.send_task(
            "bridge.stamp_chunk",
            kwargs={"run": name, "number": number},
            task_id=chunk_job(name, number),
            headers={HEADER: self.handle.correlation_id, ITEM: f"{name}|{number}|"},
            ignore_result=True,
        )

    def _has_room(self) -> bool:
        """Wait while too much of the run waits; whether it still goes on."""
        while not (progress := self.handle.progress()).stopped:
            if progress.chunks - progress.settled <= OUTSTANDING:
                return True
            self._tell()
            time.sleep(_PAUSE_SECONDS)
        return False


def _other_files() -> InvalidRequest:
    return InvalidRequest("run", "had other files, or they have changed since: begin a new one")
