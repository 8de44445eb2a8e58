"""Bulk runs: thousands of files as one thing that is submitted, watched, cancelled and resumed.

A run is a record with counts, and chunks of files that workers take one by one. What became of each file is
written once, with the counts, so they always agree. Written for both drivers, as `jobs` is.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from bridge_tasks.ledger import keys
from bridge_tasks.ledger.commands import run as run_script
from bridge_tasks.ledger.commands import text
from bridge_tasks.ledger.jobs import LedgerRules
from bridge_tasks.ledger.packing import (
    FileOutcome,
    RunFile,
    pack_files,
    pack_outcomes,
    unpack_files,
    unpack_outcomes,
)
from bridge_tasks.ledger.records import MICROSECONDS, Outcome, pairs
from bridge_tasks.resilience.state.shared_redis import RedisCommands, Script

_CHUNK = Script("run_chunk", __package__)
_LATEST = Script("run_latest", __package__)
_SETTLE = Script("run_settle", __package__, "advance")
_SEAL = Script("run_seal", __package__, "advance")

RUNS_KEPT = 1000
"""Runs that can be listed; each is kept as long as any record."""

RunState = Literal["submitting", "running", "succeeded", "failed", "cancelled"]
Hashing = Literal["service", "local"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What all files of a run have in common.

    Attributes:
        namespace: where their stamps belong.
        stamp_data: JSON kept with each stamp.
        content_type: MIME type, if it is one for all.
        hashing: who hashes: the service, or the worker (the same BLAKE3, a sample checked against the service).
        force: stamp what an earlier run has stamped, too.
    """

    namespace: str
    stamp_data: dict[str, Any] = field(default_factory=dict)
    content_type: str | None = None
    hashing: Hashing = "service"
    force: bool = False

    @property
    def signature(self) -> list[Any]:
        """What must be equal for a file to be the same work in another run."""
        return [self.namespace, self.stamp_data, self.content_type]


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How a run stands. `total` grows while it is submitted; times are seconds since the epoch, by Redis."""

    id: str
    correlation_id: str
    title: str
    total: int
    succeeded: int
    failed: int
    cancelled: int
    degraded: int
    chunks: int
    settled: int
    sealed: bool
    stopped: bool
    accepted: float
    ended: float | None
    digest: str = field(default="", repr=False)
    options: RunOptions | None = field(default=None, repr=False)

    @property
    def over(self) -> int:
        """Files of which the end is known."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def waiting(self) -> int:
        """Files that have not ended."""
        return self.total - self.over

    @property
    def state(self) -> RunState:
        """In one word."""
        if self.stopped:
            return "cancelled"
        if self.ended is None:
            return "running" if self.sealed else "submitting"
        return "failed" if self.failed else "succeeded"

    @property
    def done(self) -> bool:
        """Whether nothing more will happen."""
        return self.ended is not None

    @classmethod
    def loads(cls, name: str, known: Mapping[str, str]) -> "RunProgress":
        """Read what Redis holds."""
        count = {key: int(known.get(key, 0)) for key in _COUNTS}
        return cls(
            id=name,
            correlation_id=known["correlation_id"],
            title=known["title"],
            sealed="sealed" in known,
            stopped="stopped" in known,
            accepted=int(known["accepted"]) / MICROSECONDS,
            ended=int(known["ended"]) / MICROSECONDS if "ended" in known else None,
            digest=known.get("digest", ""),
            options=RunOptions(**orjson.loads(known["options"])),
            **count,
        )


_COUNTS = ("total", "succeeded", "failed", "cancelled", "degraded", "chunks", "settled")


class RunLedger:
    """The runs in one Redis.

    Args:
        client: where they are; answers bytes.
        rules: for how long.
    """

    def __init__(self, client: RedisCommands, rules: LedgerRules) -> None:
        self._client = client
        self._keep = int(rules.keep)
        self._lifetime = int(rules.max_age + rules.keep)

    async def create(self, name: str, correlation_id: str, title: str, options: RunOptions) -> None:
        """Begin a run."""
        seconds, rest = await self._client.execute_command("TIME")
        now = int(seconds) * MICROSECONDS + int(rest)
        told = {
            "correlation_id": correlation_id,
            "title": title,
            "accepted": now,
            "options": orjson.dumps(options).decode(),
        }
        await self._client.execute_command(
            "HSET", keys.RUN + name, *(part for pair in told.items() for part in pair)
        )
        await self._client.execute_command("EXPIRE", keys.RUN + name, self._lifetime)
        await self._client.execute_command("ZADD", keys.RUNS, now, name)
        await self._client.execute_command("ZREMRANGEBYRANK", keys.RUNS, 0, -RUNS_KEPT - 1)
        await self._client.execute_command("ZADD", keys.CORRELATION + correlation_id, now, name)
        await self._client.execute_command("EXPIRE", keys.CORRELATION + correlation_id, self._lifetime)

    async def add(self, name: str, number: int, files: Sequence[RunFile], digest: str) -> bool:
        """Add a chunk, once. Whether the run takes any."""
        arguments = [number, pack_files(files), len(files), digest, self._lifetime]
        return int(await run_script(self._client, _CHUNK, [keys.RUN + name, _chunk(name, number)], arguments)) >= 0

    async def latest(self, paths: Sequence[str], name: str, number: int) -> list[str | None]:
        """Note for each file that this chunk is its latest; returns where its outcome was before.

        Args:
            paths: real paths, in the chunk's order; "" for content that is no file.
            name: the run.
            number: the chunk.
        """
        places = {index: f"{name}|{number}|{index}" for index, path in enumerate(paths) if path}
        names = [keys.FILE + keys.file_digest(paths[index]) for index in places]
        found = await run_script(self._client, _LATEST, names, [self._lifetime, *places.values()]) if names else []
        was = {index: text(one) for index, one in zip(places, found, strict=True)}
        return [
            was[index] if was.get(index) not in (None, "", places.get(index)) else None
            for index in range(len(paths))
        ]

    async def seal(self, name: str) -> None:
        """Say that a run gets no more files."""
        await run_script(self._client, _SEAL, [keys.RUN + name], [name, "sealed", self._keep])

    async def stop(self, name: str) -> bool:
        """Cancel a run: chunks that have not begun never will. Whether there is such a run."""
        return bool(await run_script(self._client, _SEAL, [keys.RUN + name], [name, "stopped", self._keep]))

    async def stopped(self, name: str) -> bool:
        """Say whether it was cancelled."""
        return bool(await self._client.execute_command("HEXISTS", keys.RUN + name, "stopped"))

    async def progress(self, name: str) -> RunProgress | None:
        """Return how a run stands; None where there is no record, or no longer."""
        known = pairs(await self._client.execute_command("HGETALL", keys.RUN + name))
        return RunProgress.loads(name, known) if "accepted" in known else None

    async def listed(self, limit: int = 20) -> list[str]:
        """Return the ids of the latest runs, latest first."""
        return [
            text(name) for name in await self._client.execute_command("ZRANGE", keys.RUNS, 0, limit - 1, "REV")
        ]

    async def files(self, name: str, number: int) -> list[RunFile] | None:
        """Return a chunk's files."""
        raw = await self._client.execute_command("HGET", _chunk(name, number), "files")
        return None if raw is None else unpack_files(raw)

    async def outcomes(self, name: str, number: int) -> list[tuple[RunFile, FileOutcome]]:
        """Return a chunk's files and what became of each, as far as is known."""
        fields = await self._client.execute_command("HGETALL", _chunk(name, number))
        known = {text(key): value for key, value in _items(fields)}
        if "files" not in known:
            return []
        files = unpack_files(known["files"])
        if "outcomes" in known:
            outcomes = unpack_outcomes(known["outcomes"])
        elif "error" in known:
            outcomes = [FileOutcome.of(_told(known["error"]))] * len(files)
        else:
            outcomes = [FileOutcome(None)] * len(files)
        for key, value in known.items():
            if key.startswith("alone:"):
                outcomes[int(key.removeprefix("alone:"))] = FileOutcome.of(_told(value))
        return list(zip(files, outcomes, strict=True))

    async def all_outcomes(self, name: str) -> AsyncIterator[tuple[RunFile, FileOutcome]]:
        """Give the files of a run in order, and what became of each; one chunk at a time is in memory."""
        progress = await self.progress(name)
        for number in range(progress.chunks if progress else 0):
            for pair in await self.outcomes(name, number):
                yield pair

    async def at(self, place: str) -> tuple[str, RunFile, FileOutcome] | None:
        """Return the run, file and outcome at `run|chunk|index`; None where it is no longer known."""
        name, _, rest = place.partition("|")
        number, _, index = rest.partition("|")
        if not (number.isdigit() and index.isdigit()):
            return None
        pairs_ = await self.outcomes(name, int(number))
        return (name, *pairs_[int(index)]) if int(index) < len(pairs_) else None

    async def settle(self, name: str, number: int, outcomes: Sequence[FileOutcome]) -> bool:
        """Note what became of a chunk's files, once; those that go on alone count when they end."""
        ended = [one for one in outcomes if one.state is not None]
        counts = [sum(one.state == state for one in ended) for state in ("succeeded", "failed", "cancelled")]
        degraded = sum(one.degraded for one in ended)
        arguments = [name, pack_outcomes(outcomes), *counts, degraded, self._keep]
        return bool(await run_script(self._client, _SETTLE, [_chunk(name, number)], arguments))


def _told(raw: bytes) -> Outcome:
    state, _, told = text(raw).partition(" ")
    return Outcome.loads(state, told)  # type: ignore[arg-type] # finish.lua's words


def _chunk(name: str, number: int) -> str:
    return f"{keys.RUN}{name}:{number}"


def _items(fields: Any) -> Sequence[tuple[Any, Any]]:
    if isinstance(fields, Mapping):
        return list(fields.items())
    return list(zip(fields[::2], fields[1::2], strict=True))
