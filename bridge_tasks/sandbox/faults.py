"""The faults that can be ordered, and the list of those in force.

Says what goes wrong and for whom; `fault_effects` makes it go wrong. Chance is a parameter.
"""

import threading
from random import Random
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

Probability = Annotated[float, Field(ge=0, le=1)]


class Rule(BaseModel):
    """Whom a fault meets: requests whose path contains `path`, with this `method` if one is given.

    `count` is for how many requests (default: until cleared), `probability` that of each one that matches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = ""
    method: str | None = None
    count: PositiveInt | None = None
    probability: Probability = 1.0

    def matches(self, method: str, path: str) -> bool:
        """Tell whether a request is one of those meant."""
        return self.path in path and self.method in (None, method)


class Answering(Rule):
    """A fault in place of the answer. With `after_work` the work is done first, and its answer lost."""

    after_work: bool = False


class Latency(Rule):
    """The answer is late by `seconds`, give or take up to `jitter`; the work is done at once."""

    kind: Literal["latency"] = "latency"
    seconds: NonNegativeFloat
    jitter: NonNegativeFloat = 0.0


class Late(Rule):
    """The work begins only after `seconds`, whether or not the client still waits by then."""

    kind: Literal["late"] = "late"
    seconds: NonNegativeFloat


class Drip(Rule):
    """The head of the answer comes at once, then `size` bytes of the body every `seconds`."""

    kind: Literal["drip"] = "drip"
    size: PositiveInt = 1
    seconds: NonNegativeFloat = 0.05


class Truncate(Rule):
    """Half of the body comes, then the connection is closed."""

    kind: Literal["truncate"] = "truncate"


class Status(Answering):
    """An HTTP error. `retry_after` seconds go into the header of that name, as an HTTP date if `as_date`."""

    kind: Literal["status"] = "status"
    code: Annotated[int, Field(ge=400, le=599)]
    retry_after: NonNegativeFloat | None = None
    as_date: bool = False
    body: Any = {"detail": "fault injected by the sandbox"}


class StatusError(Answering):
    """HTTP 200, and an envelope that says `error`."""

    kind: Literal["status_error"] = "status_error"
    message: str = "fault injected by the sandbox"


class WrongContentType(Answering):
    """HTTP 200, and a page of HTML, as a proxy might show."""

    kind: Literal["wrong_content_type"] = "wrong_content_type"


class GarbageJson(Answering):
    """HTTP 200, and a body that says it is JSON and is not."""

    kind: Literal["garbage_json"] = "garbage_json"


class HugeJson(Answering):
    """HTTP 200, and valid JSON of about `size` bytes, sent in pieces without saying how long it will be."""

    kind: Literal["huge_json"] = "huge_json"
    size: PositiveInt = 100 << 20


class Reset(Answering):
    """The connection is reset before the first byte of an answer."""

    kind: Literal["reset"] = "reset"


class Disconnect(Answering):
    """The connection is closed in good order before the first byte of an answer."""

    kind: Literal["disconnect"] = "disconnect"


class Hang(Answering):
    """Nothing comes, until the faults are cleared (then the connection is closed) or the client leaves."""

    kind: Literal["hang"] = "hang"


class Refuse(BaseModel):
    """From now on, for `seconds`, nobody listens on the port; idle connections are closed. Meets everybody."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["refuse"] = "refuse"
    seconds: Annotated[float, Field(gt=0, le=600)]


Injected = (
    Latency
    | Late
    | Drip
    | Truncate
    | Status
    | StatusError
    | WrongContentType
    | GarbageJson
    | HugeJson
    | Reset
    | Disconnect
    | Hang
)
"""The faults that meet single requests."""

Fault = Annotated[Injected | Refuse, Field(discriminator="kind")]
"""Any fault, as JSON orders it: by `kind`."""


class Faults:
    """The faults in force, in the order they were added; the first that meets a request wins.

    May be used from any thread.
    """

    def __init__(self, chance: Random | None = None) -> None:
        self.chance = chance or Random()
        self.generation = 0
        self._lock = threading.Lock()
        self._in_force: list[tuple[Injected, int | None]] = []

    @property
    def in_force(self) -> list[Injected]:
        """What may still meet a request."""
        return [fault for fault, _ in self._in_force]

    def add(self, *faults: Injected) -> None:
        """Put faults in force, after those that are."""
        with self._lock:
            self._in_force += [(fault, fault.count) for fault in faults]

    def clear(self) -> None:
        """Lift all faults, and end the hangs they caused."""
        with self._lock:
            self._in_force.clear()
            self.generation += 1

    def take(self, method: str, path: str) -> Injected | None:
        """Return the fault that meets this request, if any, and count it as used."""
        if not self._in_force:
            return None
        with self._lock:
            for index, (fault, left) in enumerate(self._in_force):
                if not fault.matches(method, path) or self.chance.random() >= fault.probability:
                    continue
                if left == 1:
                    del self._in_force[index]
                elif left is not None:
                    self._in_force[index] = (fault, left - 1)
                return fault
        return None
