"""Reads, from the request for a stamp, who asks: the idempotency key, what it stands for, the correlation id."""

from fastapi import Request

from bridge_tasks.sandbox.backend import Backend, work
from bridge_tasks.sandbox.envelope import refusal
from bridge_tasks.sandbox.keys import LONGEST, Asked, fingerprint, usable

HEADER = "idempotency-key"


async def who_asks(request: Request, backend: Backend) -> Asked:
    """Read the headers; the key may be a quoted string, as the IETF's draft has it, or bare.

    Raises:
        HTTPException: 400, the header is no key.
    """
    correlation_id = request.headers.get("x-correlation-id")
    given = request.headers.get(HEADER)
    if given is None or not backend.heeds_keys:
        return Asked(correlation_id=correlation_id, heeded=backend.heeds_keys)
    key = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not usable(key):
        raise refusal(400, "IDEMPOTENCY_KEY_INVALID", f"a key has 1 to {LONGEST} printable characters", HEADER)
    body = request.url.path.encode() + b" " + await request.body()
    return Asked(key, await work(len(body), fingerprint, body), correlation_id)
