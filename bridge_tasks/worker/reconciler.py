"""Puts back what got lost: messages of dead workers, and messages that are nowhere though their record is open.

Each worker gives signs of life; one of them at a time, under a lease, looks. It costs a few commands a look,
however long the queues are. Runs in a thread of the worker's main process and must never raise out of it.
"""

import logging
import math
import threading
from typing import Any

import orjson
import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from bridge_tasks import events
from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.errors import JobExpired
from bridge_tasks.ledger import JobLedger, Outcome, keys
from bridge_tasks.ledger.envelope import PRIORITY_SEPARATOR, Envelope
from bridge_tasks.ledger.lost import QueueSeen, lost
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.ledger.workers import Watched, Workers, silent
from bridge_tasks.places import Place
from bridge_tasks.resilience.state.shared_redis import Script
from bridge_tasks.settings import LedgerSettings

_LEASE = "bridge:reconciler"
_RESTORE = Script("restore", "bridge_tasks.ledger")
_ABANDONED = Script("abandoned", "bridge_tasks.ledger")
_BINDINGS = "_kombu.binding."
_SECONDS = 2.0
_LEAVE_SECONDS = 10.0
"""For the look under way to end: a sign of life after the last word would be one of a ghost."""
_TAIL = 50
"""Messages at the end of a queue that are looked through for one with a record."""
_MOST = 1000
"""Candidates of one queue in one look."""

_log = logging.getLogger(__name__)


class Reconciler:
    """The thread of one worker.

    Args:
        place: the Redis with the messages and their records.
        settings: how often, and when a worker is dead.
        name: this worker's.
        relayed: whether messages are in another broker, which knows itself what dead workers held.
    """

    def __init__(self, place: Place, settings: LedgerSettings, name: str, *, relayed: bool = False) -> None:
        self._client = place.client(
            retry=Retry(NoBackoff(), 0), socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS
        )
        commands = BlockingRedis(self._client)
        self._ledger = JobLedger(commands, settings, relayed=relayed)
        self._workers = Workers(commands)
        self._settings = settings
        # A look follows a sign of life: where looks are set closer together, they are as far apart as those.
        self._apart = math.ceil(settings.look_seconds / settings.beat_seconds) * settings.beat_seconds
        self._looks = math.ceil(settings.dead_after / self._apart)
        self._watched: Watched = {}
        self._name = name
        self._relayed = relayed
        self._suspects: dict[str, dict[str, int]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bridge-reconciler", daemon=True)

    def start(self) -> None:
        """Begin; the first sign of life is given before this returns, if Redis is there."""
        try:
            drive(self._workers.beat(self._name))
        except redis.RedisError as error:
            _log.warning("no sign of life could be given: %s", type(error).__name__)
        self._thread.start()

    def stop(self) -> None:
        """End, and say so: what this worker still holds is nobody's."""
        self._stopped.set()
        self._thread.join(_LEAVE_SECONDS)
        try:
            drive(self._workers.leave(self._name))
            self._restore(self._name)
        except redis.RedisError as error:
            _log.warning("the worker leaves without a word: %s", type(error).__name__)
        self.stop_client()

    def stop_client(self) -> None:
        """Close the connection."""
        self._client.close()

    def _run(self) -> None:
        waited = 0.0
        while not self._stopped.wait(self._settings.beat_seconds):
            waited += self._settings.beat_seconds
            try:
                drive(self._workers.beat(self._name))
                if waited >= self._settings.look_seconds and self.leads():
                    waited = 0.0
                    self.look()
            except NoPermissionError as error:
                _log.warning("nothing can be looked for: %s (bridge-tasks check)", error)
            except redis.RedisError as error:
                self._forget_evidence()  # nobody can give a sign of life to a Redis that is away
                _log.debug("nothing could be looked for: %s", type(error).__name__)
            except Exception:  # noqa: BLE001 - without this thread, nobody would notice what is lost
                _log.exception("a look for lost messages failed")

    def leads(self) -> bool:
        """Say whether it is this worker that looks, for two looks' time.

        The lease outlasts the pause between two looks: who finds it gone must take it that somebody else looked
        meanwhile, and what only was missing once is no evidence.
        """
        milliseconds = math.ceil(self._apart * 2000)
        if self._client.set(_LEASE, self._name, nx=True, px=milliseconds):
            self._forget_evidence()  # somebody else looked until now
            return True
        held = self._client.get(_LEASE)
        if isinstance(held, bytes) and held.decode() == self._name:
            self._client.pexpire(_LEASE, milliseconds)
            return True
        return False

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

    def _forget_evidence(self) -> None:
        self._suspects.clear()
        self._watched = {}

    def _held(self, key: str) -> set[str]:
        names = (_held_message(raw)[0].task_id for raw in self._client.hvals(key))
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
            envelope, exchange, routing_key = _held_message(held[tag])
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
        return int(self._script(_RESTORE, names, [tag, envelope.redelivered().dumps()]))

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
        found = self._script(_ABANDONED, [keys.RUNNING + queue], [])
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

    def _oldest(self, name: str) -> int | None:
        """When the oldest message of a list was queued that has a record."""
        for raw in reversed(self._client.lrange(name, -_TAIL, -1)):
            task = Envelope.loads(raw).task_id
            queued = self._client.hget(keys.JOB + task, "queued") if task else None
            if queued is not None:
                return int(queued)
        return None

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

    def _script(self, script: Script, names: list[str], arguments: list[Any]) -> Any:
        tail = (len(names), *names, *arguments)
        try:
            return self._client.execute_command("EVALSHA", script.digest, *tail)  # type: ignore[no-untyped-call]
        except redis.exceptions.NoScriptError:
            return self._client.execute_command("EVAL", script.source, *tail)  # type: ignore[no-untyped-call]


def _held_message(raw: bytes | str) -> tuple[Envelope, str, str]:
    """Read what kombu keeps of an unacknowledged message: the message, its exchange, its routing key."""
    message, exchange, routing_key = orjson.loads(raw)
    return Envelope(message), str(exchange or ""), str(routing_key)
