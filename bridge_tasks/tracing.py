"""Where spans begin and end: a port to whoever traces. Nobody does by default, and then it costs next to nothing.

It knows no library. `observability.spans` puts OpenTelemetry behind it where that is wanted.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Literal, Protocol, Self

HEADERS = ("traceparent", "tracestate")
"""How a trace travels, in messages as in HTTP (W3C Trace Context)."""

Kind = Literal["internal", "producer", "consumer", "client", "server"]
Carrier = Mapping[str, str]
"""The headers of a trace; empty where there is none."""


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Span(Protocol):
    """A piece of work under way."""

    @property
    def carrier(self) -> Carrier:
        """What names it, for whoever goes on with it elsewhere."""

    def tell(self, attributes: Mapping[str, Any]) -> None:
        """Say more of it."""

    def fail(self, why: str) -> None:
        """Say that it failed."""


class Tracer(Protocol):
    """Whoever traces."""

    def span(
        self, name: str, kind: Kind, carried: Carrier | None, attributes: Mapping[str, Any]
    ) -> AbstractContextManager[Span]:
        """Begin a piece of work: part of the one that `carried` names, or of the one at hand."""

    def carrier(self) -> Carrier:
        """Name the work at hand."""

    def flush(self) -> None:
        """Hand over what was noted; the process may be about to end."""


class _Untraced:
    """What there is where nobody traces."""

    carrier: Carrier = _NOTHING

    def tell(self, attributes: Mapping[str, Any]) -> None:
        pass

    def fail(self, why: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_UNTRACED = _Untraced()
_tracer: Tracer | None = None
_lock = threading.Lock()
_offered: Callable[[], Tracer | None] | None = None


def use(tracer: Tracer | None) -> None:
    """Have this process traced, or not."""
    global _tracer, _offered
    _tracer, _offered = tracer, None


def offer(make: Callable[[], Tracer | None]) -> None:
    """Ask for a tracer, or None, when one is first needed: each process makes its own, after it was forked."""
    global _offered  # noqa: PLW0603 - see above
    _offered = make


def is_on() -> bool:
    """Whether anybody traces: for callers on whose way every microsecond counts."""
    if _offered is not None:
        with _lock:
            if _offered is not None:
                use(_offered())
    return _tracer is not None


def span(
    name: str,
    kind: Kind = "internal",
    carried: Carrier | None = None,
    attributes: Mapping[str, Any] = _NOTHING,
) -> AbstractContextManager[Span]:
    """Begin a piece of work, for the length of a `with` block.

    Args:
        name: what it is, from a small set.
        kind: its place between processes.
        carried: what came with it from another process; headers of others are no harm.
        attributes: more of it, never content.
    """
    return _tracer.span(name, kind, carried, attributes) if is_on() and _tracer else _UNTRACED


def carrier() -> Carrier:
    """Name the work at hand, for whoever goes on with it elsewhere."""
    return _tracer.carrier() if is_on() and _tracer else {}


def flush() -> None:
    """Hand over what was noted."""
    if _tracer is not None:
        _tracer.flush()


def carried_by(headers: Mapping[str, Any]) -> dict[str, str]:
    """Pick out what names a trace."""
    if not headers.get("traceparent"):
        return {}
    return {name: value for name in HEADERS if isinstance(value := headers.get(name), str)}
