"""Bulk runs: thousands of files as one thing that is submitted, watched, cancelled and resumed.

A run is a record with counts, and chunks of files that workers take one by one. What became of each file is
written once, with the counts, so they always agree. Written for both drivers, as `jobs` is.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal
from uuid import UUID, uuid5

import orjson

from bridge_tasks.ledger import keys
from bridge_tasks.ledger.commands import run as run_script
from bridge_tasks.ledger.commands import text
from bridge_tasks.ledger.jobs import JobLedger, LedgerRules
from bridge_tasks.ledger.packing import (
    FileOutcome,
    RunFile,
    pack_files,
    pack_outcomes,
    unpack_files,
    unpack_outcomes,
)
from bridge_tasks.ledger.records import MICROSECONDS, Outcome, pairs
from bridge_tasks.ledger.run_records import RunOptions, RunProgress
from bridge_tasks.resilience.state.shared_redis import RedisCommands, Script

_CHUNK = Script("run_chunk", __package__)
_SETTLE = Script("run_settle", __package__, "advance")
_SEAL = Script("run_seal", __package__, "advance")
_DROP = Script("run_drop", __package__, "advance")

_AT_ONCE = 100
"""Chunks that are dropped in one call: it holds Redis for some milliseconds."""

RUNS_KEPT = 1000
"""Runs that can be listed; each is kept as long as any record."""

Added = Literal["added", "there", "refused", "unknown"]
"""What became of a chunk: it was added; it had been before; the run takes no more; there is no such run."""

_ADDED: dict[int, Added] = {1: "added", 0: "there", -1: "refused", -2: "unknown"}


class RunLedger:
    """The runs in one Redis.

    Args:
        client: where they are; answers bytes.
        rules: for how long.
    """

    def __init__(self, client: RedisCommands, rules: LedgerRules) -> None:
        self._client = client
        self._jobs = JobLedger(client, rules)
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

    async def add(self, name: str, number: int, files: Sequence[RunFile], digest: str) -> Added:
        """Add a chunk, once, and note for each file that this chunk is its latest."""
        paths = {index: _path(file) for index, file in enumerate(files)}
        places = {keys.FILE + keys.file_digest(path): index for index, path in paths.items() if path}
        arguments = [number, pack_files(files), len(files), digest, self._lifetime]
        answer = await run_script(
            self._client,
            _CHUNK,
            [keys.RUN + name, _chunk(name, number), *places],
            [*arguments, *(f"{name}|{number}|{index}" for index in places.values())],
        )
        return _ADDED[int(answer)]

    async def before(self, files: Sequence[RunFile]) -> list[str | None]:
        """Return of each file where its latest outcome is: `run|chunk|index`, or the id of a job of its own."""
        places = {index: path for index, path in enumerate(map(_path, files)) if path}
        names = [keys.FILE + keys.file_digest(path) for path in places.values()]
        found = await self._client.execute_command("MGET", *names) if names else []
        known = dict(zip(places, found, strict=True))
        return [text(known[index]) if known.get(index) else None for index in range(len(files))]

    async def seal(self, name: str) -> None:
        """Say that a run gets no more files."""
        await run_script(self._client, _SEAL, [keys.RUN + name], [name, "sealed", self._keep])

    async def stop(self, name: str) -> bool:
        """Cancel a run: what has not begun never will. Whether there is such a run, and it had not ended.

        A chunk that a worker has begun ends soon, since the worker looks; the others end here and now.
        """
        done = await run_script(self._client, _SEAL, [keys.RUN + name], [name, "stopped", self._keep])
        progress = await self.progress(name)
        if not int(done) or progress is None:
            return False
        last = progress.chunks
        while last > 0:  # from the end: the last ones wait
            first = max(0, last - _AT_ONCE)
            await self._drop(name, range(first, last))
            last = first
        return True

    async def _drop(self, name: str, numbers: Sequence[int]) -> None:
        cancelled = Outcome("cancelled")
        names = [key for number in numbers for key in (_chunk(name, number), keys.JOB + chunk_job(name, number))]
        arguments = [name, cancelled.dumps(), self._keep, *numbers]
        for number in map(int, await run_script(self._client, _DROP, names, arguments)):
            for index, (_, outcome) in enumerate(await self.outcomes(name, number)):
                if outcome.alone and outcome.state is None:
                    await self._jobs.finish(alone_job(name, number, index), cancelled, state="waiting")

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

    async def settled(self, name: str, number: int) -> bool:
        """Say whether what became of a chunk's files is noted."""
        return bool(await self._client.execute_command("HEXISTS", _chunk(name, number), "outcomes"))

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
            outcomes = [replace(FileOutcome.of(_told(known["error"])), alone=False)] * len(files)
        else:
            outcomes = [FileOutcome(None)] * len(files)
        for key, value in known.items():
            index = int(key.removeprefix("alone:")) if key.startswith("alone:") else None
            if index is not None and outcomes[index].state != "succeeded":  # nothing takes a stamp back
                outcomes[index] = FileOutcome.of(_told(value))
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
        decided = "".join(_letter(one) for one in outcomes)
        arguments = [name, number, pack_outcomes(outcomes), decided, self._keep]
        return bool(await run_script(self._client, _SETTLE, [_chunk(name, number)], arguments))


def chunk_job(run: str, number: int) -> str:
    """Return the id of the task that stamps a chunk: the same whoever sends it, so it is one job."""
    return str(uuid5(UUID(run), str(number)))


def alone_job(run: str, number: int, index: int) -> str:
    """Return the id of the task that stamps one file of a chunk alone."""
    return str(uuid5(UUID(run), f"{number}|{index}"))


def _letter(outcome: FileOutcome) -> str:
    """Write an outcome as `advance.lua` counts it."""
    if outcome.state == "succeeded":
        return "d" if outcome.degraded else "s"
    return {"failed": "f", "cancelled": "c"}.get(outcome.state or "", "-")


def _path(file: RunFile) -> str | None:
    """The real path of what is a file, and was not refused."""
    path = file.content.get("path") if file.content.get("kind") == "file" and file.refused is None else None
    return path if isinstance(path, str) else None


def _told(raw: bytes) -> Outcome:
    state, _, told = text(raw).partition(" ")
    return Outcome.loads(state, told)  # type: ignore[arg-type] # finish.lua's words


def _chunk(name: str, number: int) -> str:
    return f"{keys.RUN}{name}:{number}"


def _items(fields: Any) -> Sequence[tuple[Any, Any]]:
    if isinstance(fields, Mapping):
        return list(fields.items())
    return list(zip(fields[::2], fields[1::2], strict=True))
