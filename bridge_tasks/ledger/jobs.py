"""The ledger as the rest of the house asks it: one method per question, one round trip each.

Written once for both drivers: over a blocking Redis client nothing in it suspends. Redis's own errors come out as
they are; whoever asks decides what they mean. (Messages are written by `broker.redis`, which sends them.)
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson
from pydantic import SecretStr

from bridge_tasks.errors import MessageRefused
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.commands import run, text
from bridge_tasks.ledger.dead import Wanted
from bridge_tasks.ledger.envelope import JOINED, Envelope
from bridge_tasks.ledger.records import MICROSECONDS, DeadLetter, JobRecord, Outcome, State, pairs
from bridge_tasks.resilience.state.shared_redis import RedisCommands, Script
from bridge_tasks.signing import signer_of

PUT = Script("put", __package__)
_BEGIN = Script("begin", __package__)
_FINISH = Script("finish", __package__, "advance")
_READ = Script("read", __package__)
_WATCH = Script("watch", __package__)
_HAND_OVER = Script("hand_over", __package__)
_REQUEUE = Script("requeue", __package__, "advance")
_CANCEL = Script("cancel", __package__)

_MANY = 500
"""Records asked about in one call: it holds Redis for a millisecond."""

Verdict = Literal["run", "busy", "old", "succeeded", "failed", "cancelled"]


class LedgerRules(Protocol):
    """What `settings.LedgerSettings` says; times are seconds."""

    @property
    def max_age(self) -> float:
        """After which a job that has not ended is a dead letter."""

    @property
    def keep(self) -> float:
        """For how long a record is kept after its end."""

    @property
    def dead_letters(self) -> int:
        """How many are kept."""

    @property
    def signing_keys(self) -> tuple[SecretStr, ...]:
        """With what messages are signed."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Whether a worker is to run a message that it holds.

    `run`; `busy`: another worker runs it, or a retry took its place; `old`: it is over the greatest age; else it
    has ended, with `outcome`. `runs` is how many runs began before this one.
    """

    verdict: Verdict
    runs: int = 0
    outcome: Outcome | None = None


class JobLedger:
    """The records in one Redis. Thread-safe if the client is.

    Args:
        client: where they are.
        rules: for how long, and how many.
        relayed: whether queues are another broker's: what is put back goes through the outbox.
    """

    def __init__(self, client: RedisCommands, rules: LedgerRules, *, relayed: bool = False) -> None:
        self._client = client
        self._rules = rules
        self._relayed = relayed
        self._keep = int(rules.keep)
        self.lifetime = int(rules.max_age + rules.keep)
        """Seconds that a record which does not end is kept."""

    async def begin(self, name: str, rank: int, worker: str, lease: float) -> Claim:
        """Ask for a message to be run, as its `worker`, for at most `lease` seconds.

        Args:
            name: the task's id.
            rank: how often it was put into the queue on purpose: retries and waits.
            worker: who asks.
            lease: seconds.
        """
        ages = (int(lease * MICROSECONDS), int(self._rules.max_age * MICROSECONDS))
        verdict, told = _two(await run(self._client, _BEGIN, [keys.JOB + name], [name, rank, worker, *ages]))
        if verdict == "run":
            return Claim("run", runs=int(told))
        if verdict in ("busy", "old"):
            return Claim(verdict)  # type: ignore[arg-type] # narrowed by the line above
        return Claim(verdict, outcome=Outcome.loads(verdict, told))  # type: ignore[arg-type] # begin.lua's words

    async def finish(self, name: str, outcome: Outcome, *, state: State | None = None) -> int | None:
        """Note how a task ended, and with it the job that it ends.

        Args:
            name: the task's id.
            outcome: how.
            state: only if it is in this one.

        Returns:
            How many dead letters had to go for it; None if it had ended before, or has no record.
        """
        arguments = [name, outcome.state, outcome.dumps(), self._keep, self._rules.dead_letters, state or ""]
        dropped = int(await run(self._client, _FINISH, [keys.JOB + name], arguments))
        return None if dropped < 0 else dropped

    async def release(self, name: str) -> None:
        """Note that a task is no longer run, and not over: as soon as its message is missed, it is put back."""
        await self._client.execute_command("HDEL", keys.JOB + name, "worker", "lease")

    async def hand_over(self, name: str, heirs: Sequence[tuple[str, str]]) -> None:
        """Note that a task leaves its place, and its id, to others (`Task.replace`), which may take their time.

        Args:
            name: the task's id.
            heirs: ids and names of the others.
        """
        await run(self._client, _HAND_OVER, [keys.JOB + name], [name, self.lifetime, orjson.dumps(heirs).decode()])

    async def find(self, name: str) -> JobRecord | None:
        """Return a record."""
        return (await self.records([name])).get(name)

    async def records(self, names: Sequence[str]) -> dict[str, JobRecord]:
        """Return the records that there are of some tasks and jobs, in the order of their names."""
        return {name: JobRecord.loads(name, fields) for name, fields in await self._read(names)}

    async def _read(self, names: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
        found: list[tuple[str, dict[str, str]]] = []
        for begin in range(0, len(names), _MANY):
            some = names[begin : begin + _MANY]
            answers = await run(self._client, _READ, [keys.JOB + name for name in some], [JOINED])
            known = zip(some, map(pairs, answers), strict=True)
            found += [(name, fields) for name, fields in known if "state" in fields]
        return found

    async def by_correlation(self, correlation_id: str, limit: int = 1000) -> list[str]:
        """Return the ids of the jobs with a correlation id, oldest first."""
        found = await self._client.execute_command("ZRANGE", keys.CORRELATION + correlation_id, 0, limit - 1)
        return [text(name) for name in found]

    async def by_file(self, path: str) -> str | None:
        """Return the id of the latest job about a file (its real path)."""
        found = await self._client.execute_command("GET", keys.FILE + keys.file_digest(path))
        return None if found is None else text(found)

    async def watch(self, names: Sequence[str], channel: str) -> dict[str, Outcome | None]:
        """Say how jobs stand, and have the end of those that go on published on `channel`.

        Returns:
            An outcome for each that has ended, None for each that goes on; what there is no record of is absent.
        """
        known: dict[str, Outcome | None] = {}
        for begin in range(0, len(names), _MANY):
            some = names[begin : begin + _MANY]
            answers = await run(self._client, _WATCH, [keys.JOB + name for name in some], [channel])
            for name, answer in zip(some, answers, strict=True):
                state, outcome = _two(answer)
                if state in ("waiting", "running"):
                    known[name] = None
                elif state:
                    known[name] = Outcome.loads(state, outcome)  # type: ignore[arg-type] # our scripts' words
        return known

    async def all_of_it(self, name: str, parts: Sequence[str], outcome: Outcome) -> Outcome:
        """Return a job's outcome with all that it came to: that of a group has the list of its members'.

        Args:
            name: the job's id; that of the task that ends it, unless it is a group.
            parts: the ids of the tasks that end it.
            outcome: as `watch` tells it.
        """
        if outcome.error is not None or tuple(parts) in ((), (name,)):
            return outcome
        known = await self.watch(parts, "")
        ends = [known.get(part) for part in parts]
        error = next((end.error for end in ends if end is not None and end.error is not None), None)
        return Outcome(outcome.state, [end.result if end is not None else None for end in ends], error)

    async def cancel(self, name: str) -> str:
        """Cancel a job; what has begun goes on. Returns its state now, "" where there is no record."""
        return text(await run(self._client, _CANCEL, [keys.JOB + name], [self._keep]))

    async def whole(self, name: str) -> None:
        """Note that all of a job was sent."""
        await self._client.execute_command("HSET", keys.JOB + name, "whole", "1")

    async def dead(self, limit: int = 1000, wanted: Wanted | None = None) -> list[DeadLetter]:
        """Return dead letters, latest first.

        Args:
            limit: at most so many.
            wanted: which; all by default.
        """
        wanted = wanted or Wanted()
        latest = "+inf" if wanted.until is None else f"({int(wanted.until * MICROSECONDS)}"
        oldest = "-inf" if wanted.since is None else int(wanted.since * MICROSECONDS)
        found: list[DeadLetter] = []
        seen = 0
        while len(found) < limit:
            arguments = (latest, oldest, "BYSCORE", "REV", "LIMIT", seen, _MANY)
            names = await self._client.execute_command("ZRANGE", keys.DEAD, *arguments)
            letters = await self._letters([text(name) for name in names])
            found += [letter for letter in letters if wanted.means(letter)]
            seen += len(names)
            if len(names) < _MANY:
                break
        return found[:limit]

    async def dead_letter(self, name: str) -> DeadLetter | None:
        """Return one dead letter."""
        return next(iter(await self._letters([name])), None)

    async def dead_count(self) -> int:
        """Return how many dead letters there are."""
        return int(await self._client.execute_command("ZCARD", keys.DEAD))

    async def _letters(self, names: Sequence[str]) -> list[DeadLetter]:
        letters = [DeadLetter.loads(name, fields) for name, fields in await self._read(names)]
        return [letter for letter in letters if letter is not None]

    async def replay(self, name: str) -> bool:
        """Send a dead letter again, with its id and its correlation id, its attempts counted anew.

        Whether it could be: not twice, not without its message, and no member of a chord (`DeadLetter.joined`).
        """
        letter = await self.dead_letter(name)
        return letter is not None and letter.replayable and await self.requeue(name, state="failed", anew=True)

    async def namespace(self, name: str) -> str:
        """Return whose work a task is about; empty where its message is gone, or names none."""
        message = await self._client.execute_command("HGET", keys.JOB + name, "message")
        return "" if message is None else Envelope.loads(message).namespace

    async def drop(self, name: str) -> bool:
        """Forget a dead letter: its record says how it ended, but it cannot be replayed."""
        removed = await self._client.execute_command("ZREM", keys.DEAD, name)
        await self._client.execute_command("HDEL", keys.JOB + name, "message")
        return bool(removed)

    async def requeue(self, name: str, *, state: State, queued: int | None = None, anew: bool = False) -> bool:
        """Put a record's message into its queue again.

        Args:
            name: the task's id.
            state: only if it is in this one.
            queued: only if it was queued then, in microseconds, and never since.
            anew: its attempts are counted from the start.

        Returns:
            Whether it was put there.
        """
        wanted = ("message", "queue", "queued", "runs", "state")
        known = await self._client.execute_command("HMGET", keys.JOB + name, *wanted)
        message, queue, since, runs, now = (None if value is None else text(value) for value in known)
        if message is None or queue is None or now != state or queued not in (None, int(since or 0)):
            return False
        envelope = self._fresh(Envelope.loads(message), anew=anew)
        flags = ("1" if anew else "0", "1" if self._relayed else "0")
        done = await run(
            self._client,
            _REQUEUE,
            [keys.JOB + name, queue],
            [name, envelope.dumps(), queue, self.lifetime, state, since, runs or "0", *flags],
        )
        return int(done) == 1

    async def refuse(self, name: str, message: Mapping[str, Any], error: MessageRefused) -> None:
        """End a record whose message no worker takes; a message that only has its id ends nothing."""
        known = await self._client.execute_command("HGET", keys.JOB + name, "message")
        if known is not None and Envelope.loads(known).lasting == Envelope(message).lasting:
            await self.finish(name, Outcome("failed", error=error))

    def _fresh(self, envelope: Envelope, *, anew: bool) -> Envelope:
        """Make a message ready to be sent again; it is signed anew only if it was signed by one of us.

        Whoever can write a record could have anything signed otherwise.
        """
        fresh = envelope.fresh(anew=anew)
        if self._relayed:
            fresh = fresh.plain()
        signer = signer_of(self._rules.signing_keys, self._rules.max_age)
        if signer is None:
            return fresh
        now = time.time()
        try:
            signer.check(envelope.message, None if anew else now)
        except MessageRefused:
            return fresh
        return Envelope(signer.signed(fresh.message, now))

    async def overdue(self, limit: int = 100) -> list[str]:
        """Return tasks that wait beyond the greatest age."""
        return await self._older_than(self._rules.max_age, limit)

    async def _older_than(self, seconds: float, limit: int) -> list[str]:
        now = await self.now()
        found: list[str] = []
        for queue in await self.queues():
            until = now - int(seconds * MICROSECONDS)
            names = await self._client.execute_command(
                "ZRANGE", keys.OPEN + queue, "-inf", until, "BYSCORE", "LIMIT", 0, limit
            )
            found += [text(name) for name in names]
        return found

    async def queues(self) -> list[str]:
        """Return the lists that jobs were put into: of a queue, one for each priority."""
        return sorted(text(name) for name in await self._client.execute_command("SMEMBERS", keys.QUEUES))

    async def now(self) -> int:
        """Return Redis's clock, in microseconds."""
        seconds, rest = await self._client.execute_command("TIME")
        return int(seconds) * MICROSECONDS + int(rest)


def _two(answer: Sequence[Any]) -> tuple[str, str]:
    first, *rest = answer
    return text(first), text(rest[0]) if rest else ""
