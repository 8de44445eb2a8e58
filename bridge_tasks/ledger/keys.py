"""Names of keys, and the key that makes two submissions one job. Pure."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import orjson

JOB: Final = "bridge:job:"
CORRELATION: Final = "bridge:cid:"
FILE: Final = "bridge:file:"
OPEN: Final = "bridge:open:"
QUEUES: Final = "bridge:queues"
DEAD: Final = "bridge:dead"
RUNNING: Final = "bridge:running:"
TOTALS: Final = "bridge:totals"
EXAMPLES: Final = "bridge:examples"
OUTBOX: Final = "bridge:outbox"
"""Messages that are not known to be with a broker that is no Redis, by when to send them (again)."""
LOOKED: Final = "bridge:looked"
METRICS: Final = "bridge:metrics"
RUN: Final = "bridge:run:"
RUNS: Final = "bridge:runs"
RUN_NEWS: Final = "bridge:run-news:"
WORKERS: Final = "bridge:workers"
WORKER: Final = "bridge:worker:"
UNACKED: Final = "bridge:unacked:"
UNACKED_INDEX: Final = "bridge:unacked_index:"
UNACKED_MUTEX: Final = "bridge:unacked_mutex:"
"""Each worker keeps what it has not acknowledged apart, so that it can be told whose it is."""
SESSION: Final = "bridge:session:"
"""Over which of its connections a worker takes messages; what it asked over another and comes late takes none."""

_DIGEST_CHARS = 32
"""128 bits: two of 10^12 jobs meet by chance once in 10^14 such ledgers."""


def idempotency_key(work: Sequence[Any]) -> str:
    """Return the key of a job: a digest of what it does, in canonical JSON.

    Args:
        work: operation and input, nested as the canvas is; plain JSON.
    """
    return _digest(orjson.dumps(work, option=orjson.OPT_SORT_KEYS))


def file_digest(path: str) -> str:
    """Return under what a file's latest job is found."""
    return _digest(path.encode(errors="surrogatepass"))


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:_DIGEST_CHARS]
