"""The effect of the work at hand: the key under which it happens once, however often the work is run.

It lives in a context variable beside the correlation id; whoever runs a job binds it round each run. This module
must never make up a key for work that has none: a call outside a job is its caller's to repeat, or not.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from bridge_tasks.errors import InvalidRequest

HTTP_HEADER = "Idempotency-Key"
"""As in the IETF's draft (draft-ietf-httpapi-idempotency-key-header), which makes its value a quoted string."""

PATTERN = re.compile(r"[A-Za-z0-9._~-]{1,64}")
"""The characters that no URL, header, file name or Redis key has to escape."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a job is to bring about, once.

    `key` names it: 1 to 64 letters, digits or `._~-`. `resumed` says that it may have been begun before, by a run
    that died or whose answer was lost; then what is there already is looked for before anything is sent.

    Raises:
        InvalidRequest: `key` is something else.
    """

    key: str
    resumed: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not PATTERN.fullmatch(self.key):
            raise InvalidRequest("idempotency_key", "must be 1 to 64 letters, digits or ._~-")

    def part(self, *names: str) -> str:
        """Return the key of one call among several: the same for the same names, in every run."""
        return key_of(self.key, *names)

    def again(self) -> Self:
        """Return this effect as it is once a first attempt has been made at it."""
        return type(self)(self.key, resumed=True)


_current: ContextVar[Effect | None] = ContextVar("bridge_effect", default=None)


def current() -> Effect | None:
    """Return the effect bound to this context, or None."""
    return _current.get()


@contextmanager
def bound(effect: Effect | None) -> Iterator[Effect | None]:
    """Bind `effect` (None: leave what is bound) for the length of a `with` block."""
    if effect is None:
        yield _current.get()
        return
    token = _current.set(effect)
    try:
        yield effect
    finally:
        _current.reset(token)


def key_of(*names: str) -> str:
    """Return a key (43 characters) that only these names, in this order, have."""
    digest = hashlib.sha256()
    for name in names:
        raw = name.encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(raw), raw))  # with lengths, so that "ab", "c" is not "a", "bc"
    return base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")


def header(key: str) -> dict[str, str]:
    """Return the HTTP header that carries `key`."""
    return {HTTP_HEADER: f'"{key}"'}
