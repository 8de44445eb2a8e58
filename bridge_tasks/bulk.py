"""How a worker stamps a chunk of a run: one call for all files that can be stamped together, the others alone.

A file ends in one of four ways: stamped, stood already (an earlier run did the same work), failed for a reason
that no second try mends, or handed over to a job of its own. A service that is away is not a file's fault: then
the chunk as a whole is tried again, and nothing is noted. This module must never hold more than a chunk in memory.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bridge_tasks import idempotency, once
from bridge_tasks.content import hashing
from bridge_tasks.driver import drive
from bridge_tasks.errors import BridgeError, ClientError, InvalidRequest, JobUnknown
from bridge_tasks.ledger.packing import FileOutcome, RunFile
from bridge_tasks.ledger.run_records import RunOptions
from bridge_tasks.ledger.runs import RunLedger
from bridge_tasks.models.content import ContentRef
from bridge_tasks.models.requests import GetIntelligence, StampChunk, refusal
from bridge_tasks.models.stamping import ChunkStamped
from bridge_tasks.operations import Services, get_intelligence, stampable
from bridge_tasks.overlapping import overlapping

THREADS = 8
"""Questions that are asked at a time: enough to hide a service's latency, too few to crowd out other jobs."""

_LOOK_SECONDS = 0.5
"""How often a chunk looks whether its run was cancelled."""

_content: TypeAdapter[ContentRef] = TypeAdapter(ContentRef)


class Cancelled(Exception):  # noqa: N818 - what happened, not what went wrong
    """The run was cancelled while a chunk was worked on."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A file that was read and hashed."""

    index: int
    file: RunFile
    hash: str
    size: int
    text: str | None


@dataclass(slots=True)
class _Chunk:
    """What is known of the files of a chunk, as it grows."""

    files: Sequence[RunFile]
    outcomes: dict[int, FileOutcome] = field(default_factory=dict)

    def open(self) -> list[tuple[int, RunFile]]:
        return [(index, file) for index, file in enumerate(self.files) if index not in self.outcomes]

    def fail(self, index: int, error: BridgeError) -> None:
        self.outcomes[index] = FileOutcome("failed", error=(type(error).__name__, str(error)))

    def cancel(self) -> None:
        for index, _ in self.open():
            self.outcomes[index] = FileOutcome("cancelled")

    def counts(self) -> ChunkStamped:
        states = [outcome.state for outcome in self.outcomes.values()]
        return ChunkStamped(
            succeeded=states.count("succeeded"),
            failed=states.count("failed"),
            cancelled=states.count("cancelled"),
            alone=states.count(None),
        )


@dataclass(frozen=True, slots=True)
class Hands:
    """Into which a chunk gives the files that are better done alone.

    Attributes:
        alone: sends a file as a job of its own, told its place in the chunk; sent twice, it is one job.
        taken: tells which of so many files were sent alone already, by a run before this one.
    """

    alone: Callable[[RunFile, int, RunOptions], None]
    taken: Callable[[int], Iterable[int]]


async def stamp_chunk(services: Services, runs: RunLedger, request: StampChunk, hands: Hands) -> ChunkStamped:
    """Stamp the files of one chunk and note what became of each.

    Raises:
        JobUnknown: the run's record is gone.
        ClientError: a service is away: nothing was noted, try again.
    """
    progress = await runs.progress(request.run)
    files = await runs.files(request.run, request.number)
    if progress is None or progress.options is None or files is None:
        raise JobUnknown(f"there is no record of run {request.run}")
    chunk = _Chunk(files)
    if await runs.settled(request.run, request.number):  # by a worker that could not say so before it died
        known = await runs.outcomes(request.run, request.number)
        chunk.outcomes |= {index: outcome for index, (_, outcome) in enumerate(known)}
        return chunk.counts()
    _leave_what_is_alone(chunk, hands)
    looking = _Looking(runs, request.run)
    try:
        if progress.stopped:
            raise Cancelled
        await _take_what_stands(runs, chunk, progress.options)
        ready = await _prepared(services, chunk, progress.options, looking)
        await looking.look()
        await _stamp(services, chunk, progress.options, ready)
        if chunk.open():
            await looking.look()
    except Cancelled:
        chunk.cancel()
    _hand_over(chunk, hands, progress.options)
    await runs.settle(request.run, request.number, [chunk.outcomes[index] for index in range(len(files))])
    return chunk.counts()


def _leave_what_is_alone(chunk: _Chunk, hands: Hands) -> None:
    """Keep off files that an earlier run of this chunk handed over: they are counted when they end, once."""
    effect = idempotency.current()
    if effect is not None and effect.resumed:
        for index in hands.taken(len(chunk.files)):
            chunk.outcomes[index] = FileOutcome(None, alone=True)


def _hand_over(chunk: _Chunk, hands: Hands, options: RunOptions) -> None:
    for index, file in chunk.open():
        try:
            hands.alone(file, index, options)
        except InvalidRequest as error:  # it has vanished meanwhile, say
            chunk.fail(index, error)
        else:
            chunk.outcomes[index] = FileOutcome(None, alone=True)


class _Looking:
    """Looks now and then whether the run was cancelled."""

    def __init__(self, runs: RunLedger, name: str) -> None:
        self._runs = runs
        self._name = name
        self._looked = time.monotonic()

    async def look(self) -> None:
        self._looked = time.monotonic()
        if await self._runs.stopped(self._name):
            raise Cancelled

    async def glance(self) -> None:
        """Look, if the last look was a while ago."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            await self.look()


async def _take_what_stands(runs: RunLedger, chunk: _Chunk, options: RunOptions) -> None:
    """Answer for files that an earlier run has stamped, if nothing has changed since."""
    known: dict[str, tuple[RunOptions | None, list[tuple[RunFile, FileOutcome]]]] = {}
    for index, file in chunk.open():
        if file.refused is not None:
            chunk.outcomes[index] = FileOutcome("failed", error=("InvalidRequest", file.refused))
            continue
        if file.before is None or options.force:
            continue
        place, _, at = file.before.rpartition("|")
        if place not in known:
            run, _, number = place.partition("|")
            progress = await runs.progress(run)
            earlier = await runs.outcomes(run, int(number)) if progress and number.isdigit() else []
            known[place] = (progress.options if progress else None, earlier)
        was, outcomes = known[place]
        if was is None or was.signature != options.signature or not at.isdigit() or int(at) >= len(outcomes):
            continue
        same, outcome = outcomes[int(at)]
        if outcome.state == "succeeded" and same.signature == file.signature:
            chunk.outcomes[index] = outcome


async def _prepared(services: Services, chunk: _Chunk, options: RunOptions, looking: _Looking) -> list[_Ready]:
    """Read and hash what is left; what cannot be read, or is no text where text is stamped, has failed."""
    await services.metadata.needs_content()  # finds the routes once, before several threads do

    def prepare(place: tuple[int, RunFile]) -> _Ready | None:
        index, file = place
        try:
            return drive(_read(services, index, file, options))
        except ClientError as error:
            if error.retryable:
                raise
            return None  # it may be this file: its own job will tell
        except BridgeError as error:
            chunk.fail(index, error)
            return None

    threads = THREADS if options.hashing == "service" else 1
    prepared = overlapping(prepare, chunk.open(), threads, lambda: drive(looking.glance()))
    ready = [one for one in prepared if one is not None]
    if options.hashing == "local" and ready:
        await _check_sample(services, ready[0], options)
    return ready


async def _read(services: Services, index: int, file: RunFile, options: RunOptions) -> _Ready:
    try:
        content = _content.validate_python(file.content)
    except ValidationError as error:
        raise refusal(error, "content") from None
    with await services.content.open(content) as opened:
        text = await stampable(services, opened)
        if options.hashing == "local":
            digest = hashing.blake3_of(text.encode() if text is not None else opened)
        else:
            digest = (await services.metadata.generate_hash(opened.file, options.namespace))["hash"]
        return _Ready(index, file, digest, opened.size, text)


async def _check_sample(services: Services, one: _Ready, options: RunOptions) -> None:
    """Have the service hash one of the files too: were its hash another, none of ours would be worth anything."""
    with await services.content.open(_content.validate_python(one.file.content)) as opened:
        told = (await services.metadata.generate_hash(opened.file, options.namespace))["hash"]
    hashing.confirm(one.hash, told)


async def _stamp(services: Services, chunk: _Chunk, options: RunOptions, ready: Sequence[_Ready]) -> None:
    """Stamp what is ready with one call; what fails in it is left open."""
    if not ready:
        return
    learned = _learned(services, options, dict.fromkeys(one.file.context for one in ready))
    items = [_item(one, options, learned[one.file.context]) for one in ready]
    try:
        results = await once.batch(services.metadata, items, options.namespace)
    except ClientError as error:
        if error.retryable:
            raise
        return  # as a whole it is refused: each file will hear why for itself
    for one, result in zip(ready, results, strict=True):
        if result.get("success"):
            chunk.outcomes[one.index] = FileOutcome(
                "succeeded",
                hash=one.hash,
                stamp_id=result.get("stamp_id"),
                stamp_hash=result.get("file_hash"),
                degraded=bool(learned[one.file.context]["degraded"]),
            )


def _learned(services: Services, options: RunOptions, contexts: Collection[str]) -> dict[str, dict[str, Any]]:
    """Ask about each context once."""

    def ask(context: str) -> dict[str, Any]:
        asked = GetIntelligence(context=context, namespace=options.namespace)
        return drive(get_intelligence(services, asked)).model_dump(exclude={"hashed"})

    return dict(zip(contexts, overlapping(ask, contexts, min(THREADS, len(contexts))), strict=True))


def _item(one: _Ready, options: RunOptions, intelligence: dict[str, Any]) -> dict[str, Any]:
    item = {
        "id": f"item_{one.index}",
        "file_hash": one.hash,
        "file_path": one.file.label,
        "file_size": one.size,
        "stamp_data": {**options.stamp_data, "intelligence": intelligence, "context": one.file.context},
        "content_type": options.content_type,
        "namespace": options.namespace,
        "content": one.text,
    }
    return {key: value for key, value in item.items() if value is not None}
