"""Puts back what got lost: messages of dead workers, and messages that are nowhere though their record is open.

Each worker gives signs of life; one of them at a time looks. It costs a few commands a look, however long the
queues are. It must never judge by one look: what is missing once may be on its way.
"""

import logging
import math
from typing import Any

import orjson
import redis

from bridge_tasks import events
from bridge_tasks.driver import drive
from bridge_tasks.errors import JobExpired
from bridge_tasks.ledger import JobLedger, Outcome, keys
from bridge_tasks.ledger.commands import run
from bridge_tasks.ledger.envelope import PRIORITY_SEPARATOR, Envelope
from bridge_tasks.ledger.lost import QueueSeen, lost
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.ledger.workers import Watched, Workers, silent
from bridge_tasks.places import Place
from bridge_tasks.resilience.state.shared_redis import Script
from bridge_tasks.settings import LedgerSettings
from bridge_tasks.worker.lookout import Lookout

_RESTORE = Script("restore", "bridge_tasks.ledger")
_ABANDONED = Script("abandoned", "bridge_tasks.ledger")
_BINDINGS = "_kombu.binding."
_TAIL = 50
"""Messages at the end of a queue that are looked through for one with a record."""
_MOST = 1000
"""Candidates of one queue in one look."""

_log = logging.getLogger(__name__)


class Reconciler(Lookout):
    """The thread of one worker.

    Args:
        place: the Redis with the messages and their records.
        settings: how often, and when a worker is dead.
        name: this worker's.
        relayed: whether messages are in another broker, which knows itself what dead workers held.
    """

    LEASE = "bridge:reconciler"
    LEAVE_SECONDS = 10.0
    """A sign of life after the last word would be one of a ghost."""

    def __init__(self, place: Place, settings: LedgerSettings, name: str, *, relayed: bool = False) -> None:
        super().__init__(place, settings, name)
        self._ledger = JobLedger(self._commands, settings, relayed=relayed)
        self._workers = Workers(self._commands)
        self._looks = math.ceil(settings.dead_after / self._apart)
        self._watched: Watched = {}
        self._relayed = relayed
        self._suspects: dict[str, dict[str, int]] = {}

    def start(self) -> None:
        """Begin; the first sign of life is given before this returns, if Redis is there."""
        try:
            self.turn()
        except redis.RedisError as error:
            _log.warning("no sign of life could be given: %s", type(error).__name__)
        super().start()

    def stop(self) -> None:
        """End, and say so: what this worker still holds is nobody's."""
        self.end()
        try:
            drive(self._workers.leave(self._name))
            self._restore(self._name)
        except redis.RedisError as error:
            _log.warning("the worker leaves without a word: %s", type(error).__name__)
        self.stop_client()

    def turn(self) -> None:
        """Give a sign of life."""
        drive(self._workers.beat(self._name))

    def look(self) -> None:
        """Look once, and put back what is found."""
        held: set[str] = set()
        signs = drive(self._workers.signs(drive(self._workers.known())))
        dead, self._watched = silent(signs, self._watched, self._looks)
        for worker in dead:
            drive(self._workers.bury(worker))
            self._restore(worker)
        for worker in self._watched:
            held |= self._held(keys.UNACKED + worker)
        held |= self._held("unacked")  # of a worker that is not ours
        now = drive(self._ledger.now())
        for queue in drive(self._ledger.queues()):
            if self._relayed:
                self._put_back(queue, self._abandoned(queue), held, now)
            else:
                self._put_back(queue, self._candidates(queue, now), held, now)
        self._expire()
        self._client.set(keys.LOOKED, drive(self._ledger.now()))

    def give_back(self) -> None:
        """Give back what this worker held over a connection that it lost: it cannot acknowledge that any more.

        What still runs comes back as well, and is spared then: the ledger knows that it runs.
        """
        try:
            self._give_back(self._name)
        except redis.RedisError as error:
            _log.warning("what was held could not be given back: %s", type(error).__name__)

    def forget_evidence(self) -> None:
        """Forget who was silent, and what was missing once."""
        self._suspects.clear()
        self._watched = {}

    def _held(self, key: str) -> set[str]:
        messages = map(_held_message, self._client.hvals(key))
        names = (message[0].task_id for message in messages if message is not None)
        return {name for name in names if name is not None}

    def _restore(self, worker: str) -> None:
        """Give back what a dead worker held, and forget it."""
        self._give_back(worker)
        self._client.delete(keys.UNACKED_MUTEX + worker)
        drive(self._workers.forget(worker))

    def _give_back(self, worker: str) -> None:
        """Give back what a worker holds; each message once, whoever else does the same."""
        given = 0
        unacked, index = keys.UNACKED + worker, keys.UNACKED_INDEX + worker
        held = self._client.hgetall(unacked)
        since: Any = dict(self._client.zrange(index, 0, -1, withscores=True))  # type: ignore[arg-type] # pairs
        for tag in sorted(held, key=lambda tag: since.get(tag, 0.0), reverse=True):  # the oldest goes out first
            message = _held_message(held[tag])
            if message is None:
                self._client.hdel(unacked, tag)
                self._client.zrem(index, tag)
                events.emit(events.MessageDropped(unacked, "message", "was held, and cannot be read", None))
                continue
            envelope, exchange, routing_key = message
            queue = self._queue(exchange, routing_key)
            given += self._restored([unacked, index, envelope.queue_key(queue)], tag, envelope)
        if given:
            events.emit(events.MessagesRestored(worker, given))

    def _queue(self, exchange: str, routing_key: str) -> str:
        """The queue that a message came from: as kombu wrote its bindings down; ours are named by their key."""
        bindings: Any = self._client.smembers(_BINDINGS + exchange) if exchange else ()
        for binding in bindings:
            key, _, queue = binding.decode().split(PRIORITY_SEPARATOR)
            if key == routing_key:
                return str(queue)
        return routing_key

    def _restored(self, names: list[str], tag: bytes | str, envelope: Envelope) -> int:
        """Give one message back, if it is still there; how many that is."""
        return int(drive(run(self._commands, _RESTORE, names, [tag, envelope.redelivered().dumps()])))

    def _put_back(self, queue: str, candidates: dict[str, int], held: set[str], now: int) -> None:
        """Put back what is missing twice in a row."""
        suspects = self._suspects.get(queue, {})
        found, self._suspects[queue] = lost(QueueSeen(candidates, held), suspects)
        for name in found:
            queued = candidates[name]
            for state in ("waiting", "running"):
                if drive(self._ledger.requeue(name, state=state, queued=queued)):
                    events.emit(events.MessageRequeued(name, queue, (now - queued) / MICROSECONDS))

    def _abandoned(self, queue: str) -> dict[str, int]:
        """The records of which a run began that nobody goes on with.

        The broker delivers such a message again, as a rule before this. But one that came again while its run went
        on was dropped as a copy of it; when the run's worker dies then, there is no other.
        """
        found = drive(run(self._commands, _ABANDONED, [keys.RUNNING + queue], ()))
        return {name.decode(): int(queued) for name, queued in zip(found[::2], found[1::2], strict=True)}

    def _candidates(self, queue: str, now: int) -> dict[str, int]:
        """The open records that are older than the oldest messages of the queue."""
        until = now - int(self._settings.look_seconds * MICROSECONDS)
        names = [Envelope.loads(raw).task_id for raw in self._client.lrange(queue, -_TAIL, -1)]
        for name in names:  # all of them: what was given back is not in order
            queued = self._client.hget(keys.JOB + name, "queued") if name else None
            if queued is not None:
                until = min(until, int(queued) - 1)
        found: Any = self._client.zrangebyscore(keys.OPEN + queue, "-inf", until, 0, _MOST, withscores=True)
        return {name.decode(): int(score) for name, score in found}

    def _expire(self) -> None:
        overdue = drive(self._ledger.overdue())
        why = JobExpired(
            f"the job did not end within {self._settings.max_age:.0f} s (BRIDGE_LEDGER__MAX_AGE)", "age"
        )
        ended = [
            drive(self._ledger.finish(name, Outcome("failed", error=why), state="waiting")) for name in overdue
        ]
        count = sum(one is not None for one in ended)
        if count:
            events.emit(events.JobsExpired(count))


def _held_message(raw: bytes | str) -> tuple[Envelope, str, str] | None:
    """Read what kombu keeps of an unacknowledged message: the message, its exchange, its routing key.

    None for what is no message: a worker that died had taken it, and had not come to refuse it.
    """
    try:
        message, exchange, routing_key = orjson.loads(raw)
    except (ValueError, TypeError):
        return None
    envelope = Envelope(message if isinstance(message, dict) else {})
    return (envelope, str(exchange or ""), str(routing_key)) if envelope.whole else None
