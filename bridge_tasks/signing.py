"""Signatures of messages: who cannot read the keys cannot make a worker do anything. Pure.

An HMAC-SHA256 over all of a message (task, id, arguments, steps to come, time limits) but for what a broker may
change on its way: the delivery tag, and the mark of a message that is delivered again. It says when it was made,
so that a copy is worth nothing once the ledger has forgotten the job. It hides nothing.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from pydantic import SecretStr

from bridge_tasks.errors import MessageRefused

HEADER = "x-bridge-signature"

SKEW = 300.0
"""Seconds that the clocks of two machines may differ."""

_ID_CHARS = 8
_MOMENT_DIGITS = 12
_FIELD = f"headers.{HEADER}"


class Signer:
    """Signs and checks with secret keys.

    Args:
        keys: the first signs; any of them is believed, so that keys can be changed one process at a time.
        lifetime: seconds that a signature is believed.
    """

    def __init__(self, keys: Sequence[SecretStr], lifetime: float) -> None:
        self._keys = {_id_of(key): key.get_secret_value().encode() for key in keys}
        self._first = _id_of(keys[0])
        self._lifetime = lifetime

    def signed(self, message: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Return a message with a signature; one that it has is replaced.

        Args:
            message: plain JSON, as it lies in a queue.
            now: seconds since the epoch.
        """
        moment = str(int(now))
        digest = self._digest(self._first, moment, message)
        headers = {**message["headers"], HEADER: f"{self._first}.{moment}.{digest}"}
        return {**message, "headers": headers}

    def check(self, message: Mapping[str, Any], now: float | None) -> None:
        """Make sure that a holder of a key made a message, and not too long ago.

        Args:
            message: as it came.
            now: seconds since the epoch; None where its age is of no account.

        Raises:
            MessageRefused: it is not so.
        """
        told = message["headers"].get(HEADER)
        if not isinstance(told, str):
            raise MessageRefused(_FIELD, "is missing")
        name, moment, digest = (*told.split(".", 2), "", "")[:3]
        if name not in self._keys or not (moment.isascii() and moment.isdigit()) or len(moment) > _MOMENT_DIGITS:
            raise MessageRefused(_FIELD, "is not of a key that is known here")
        if not hmac.compare_digest(self._digest(name, moment, message).encode(), digest.encode(errors="replace")):
            raise MessageRefused(_FIELD, "does not fit the message")
        if now is not None and not -SKEW <= now - int(moment) <= self._lifetime + SKEW:
            raise MessageRefused(_FIELD, "is too old, or of a clock that is wrong")

    def _digest(self, name: str, moment: str, message: Mapping[str, Any]) -> str:
        told = f"{name}.{moment}.".encode() + orjson.dumps(lasting(message), option=orjson.OPT_SORT_KEYS)
        return hmac.new(self._keys[name], told, hashlib.sha256).hexdigest()


@lru_cache(maxsize=8)
def signer_of(keys: tuple[SecretStr, ...], lifetime: float) -> Signer | None:
    """Return the signer with these keys; none where there are none."""
    return Signer(keys, lifetime) if keys else None


def _id_of(key: SecretStr) -> str:
    return hashlib.sha256(b"bridge_tasks:" + key.get_secret_value().encode()).hexdigest()[:_ID_CHARS]


def lasting(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a message stays the same from its sender to whoever runs it."""
    headers = {name: value for name, value in message["headers"].items() if name not in (HEADER, "redelivered")}
    properties = {name: value for name, value in message["properties"].items() if name != "delivery_tag"}
    told = properties.get("delivery_info")
    if isinstance(told, Mapping):
        properties["delivery_info"] = {name: value for name, value in told.items() if name != "redelivered"}
    return {**message, "headers": headers, "properties": properties}
