"""Puts back what got lost: messages of dead workers, and messages that are nowhere though their record is open.

Each worker gives signs of life; one of them at a time, under a lease, looks. It costs a few commands a look,
however long the queues are. Runs in a thread of the worker's main process and must never raise out of it.
"""

import logging
import threading
from typing import Any

import orjson
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks import events
from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.errors import JobExpired
from bridge_tasks.ledger import JobLedger, Outcome, keys
from bridge_tasks.ledger.envelope import Envelope
from bridge_tasks.ledger.lost import QueueSeen, lost
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.ledger.workers import Workers
from bridge_tasks.resilience.state.shared_redis import Script
from bridge_tasks.settings import LedgerSettings

_LEASE = "bridge:reconciler"
_RESTORE = Script("restore", "bridge_tasks.ledger")
_SECONDS = 2.0
_TAIL = 50
"""Messages at the end of a queue that are looked through for one with a record."""
_MOST = 1000
"""Candidates of one queue in one look."""

_log = logging.getLogger(__name__)


class Reconciler:
    """The thread of one worker.

    Args:
        url: the Redis with the messages and their records.
        settings: how often, and when a worker is dead.
        name: this worker's.
    """

    def __init__(self, url: str, settings: LedgerSettings, name: str) -> None:
        self._client = redis.Redis.from_url(
            url, retry=Retry(NoBackoff(), 0), socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS
        )
        commands = BlockingRedis(self._client)
        self._ledger = JobLedger(commands, settings)
        self._workers = Workers(commands, settings.dead_after)
        self._settings = settings
        self._name = name
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
        self._thread.join(_SECONDS)
        try:
            drive(self._workers.leave(self._name))
        except redis.RedisError as error:
            _log.warning("the worker leaves without a word: %s", type(error).__name__)
        self._client.close()

    def _run(self) -> None:
        waited = 0.0
        while not self._stopped.wait(self._settings.beat_seconds):
            waited += self._settings.beat_seconds
            try:
                drive(self._workers.beat(self._name))
                if waited >= self._settings.look_seconds and self._leads():
                    waited = 0.0
                    self.look()
            except redis.RedisError as error:
                self._suspects.clear()  # what was not seen for a while is no evidence
                _log.debug("nothing could be looked for: %s", type(error).__name__)
            except Exception:  # noqa: BLE001 - without this thread, nobody would notice what is lost
                _log.exception("a look for lost messages failed")

    def _leads(self) -> bool:
        """Whether it is this worker that looks, for two looks' time."""
        milliseconds = int(self._settings.look_seconds * 2000)
        if self._client.set(_LEASE, self._name, nx=True, px=milliseconds):
            self._suspects.clear()  # somebody else looked until now
            return True
        held = self._client.get(_LEASE)
        if isinstance(held, bytes) and held.decode() == self._name:
            self._client.pexpire(_LEASE, milliseconds)
            return True
        return False

    def look(self) -> None:
        """Look once, and put back what is found."""
        held: set[str] = set()
        for worker in drive(self._workers.known()):
            if drive(self._workers.lives(worker)):
                held |= self._held(keys.UNACKED + worker)
            else:
                self._restore(worker)
        held |= self._held("unacked")  # of a worker that is not ours
        now = drive(self._ledger.now())
        for queue in drive(self._ledger.queues()):
            self._find_lost(queue, held, now)
        self._expire()

    def _held(self, key: str) -> set[str]:
        names = (_held_message(raw)[0].task_id for raw in self._client.hvals(key))
        return {name for name in names if name is not None}

    def _restore(self, worker: str) -> None:
        """Give back what a dead worker held; each message once, whoever else does the same."""
        given = 0
        unacked, index = keys.UNACKED + worker, keys.UNACKED_INDEX + worker
        for tag, raw in self._client.hgetall(unacked).items():
            envelope, queue = _held_message(raw)
            given += self._restored([unacked, index, envelope.queue_key(queue)], tag, envelope)
        drive(self._workers.forget(worker))
        if given:
            events.emit(events.MessagesRestored(worker, given))

    def _restored(self, names: list[str], tag: bytes, envelope: Envelope) -> int:
        """Give one message back, if it is still there; how many that is."""
        return int(self._script(_RESTORE, names, [tag, envelope.redelivered().dumps()]))

    def _find_lost(self, queue: str, held: set[str], now: int) -> None:
        suspects = self._suspects.get(queue, {})
        candidates = self._candidates(queue, now)
        found, self._suspects[queue] = lost(QueueSeen(candidates, held), suspects)
        for name in found:
            queued = candidates[name]
            for state in ("waiting", "running"):
                if drive(self._ledger.requeue(name, state=state, queued=queued)):
                    events.emit(events.MessageRequeued(name, queue, (now - queued) / MICROSECONDS))

    def _candidates(self, queue: str, now: int) -> dict[str, int]:
        """The open records that are older than the oldest message of the queue."""
        until = now - int(self._settings.look_seconds * MICROSECONDS)
        for raw in reversed(self._client.lrange(queue, -_TAIL, -1)):
            name = Envelope.loads(raw).task_id
            queued = self._client.hget(keys.JOB + name, "queued") if name else None
            if queued is not None:
                until = min(until, int(queued) - 1)
                break
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

    def _script(self, script: Script, names: list[str], arguments: list[Any]) -> Any:
        tail = (len(names), *names, *arguments)
        try:
            return self._client.execute_command("EVALSHA", script.digest, *tail)  # type: ignore[no-untyped-call]
        except redis.exceptions.NoScriptError:
            return self._client.execute_command("EVAL", script.source, *tail)  # type: ignore[no-untyped-call]


def _held_message(raw: bytes | str) -> tuple[Envelope, str]:
    """Read what kombu keeps of an unacknowledged message: the message, its exchange, its routing key."""
    message, _, routing_key = orjson.loads(raw)
    return Envelope(message), str(routing_key)
