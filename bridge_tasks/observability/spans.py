"""OpenTelemetry behind `bridge_tasks.tracing`: imported only where tracing is on, with all that it needs.

Where spans go, how many are kept and what the service is called is said by OpenTelemetry's own variables
(`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`, …). A provider that the application has
set up is used as it is. Official instrumentations are not: docs/decisions/0008.
"""

import os
from collections.abc import Mapping, Sequence
from contextvars import Token
from typing import Any, Self

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import ProxyTracerProvider, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bridge_tasks import correlation, tracing

_FLUSH_MILLISECONDS = 2000
_KINDS = {
    "internal": SpanKind.INTERNAL,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "client": SpanKind.CLIENT,
    "server": SpanKind.SERVER,
}
_w3c = TraceContextTextMapPropagator()


def start(service: str = "bridge-tasks") -> tracing.Tracer:
    """Have this process traced.

    Args:
        service: what it is called where OTEL_SERVICE_NAME says nothing.
    """
    if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
        provider = TracerProvider(resource=Resource.create(named))
        provider.add_span_processor(BatchSpanProcessor(_Exporter()))
        trace.set_tracer_provider(provider)
    return OpenTelemetry()


class OpenTelemetry:
    """The tracer."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("bridge_tasks")

    def span(
        self, name: str, kind: tracing.Kind, carried: tracing.Carrier | None, attributes: Mapping[str, Any]
    ) -> "_Span":
        """Begin a span as the current one; of a remote parent, if one is named."""
        parent = _w3c.extract(carried, context.get_current()) if carried and carried.get("traceparent") else None
        told = {_name(key): value for key, value in attributes.items() if value is not None}
        cid = correlation.current()
        if cid is not None:
            told.setdefault("bridge.correlation_id", cid)
        return _Span(self._tracer.start_span(name, parent, _KINDS[kind], told), parent)

    def carrier(self) -> tracing.Carrier:
        """Write down the current span."""
        carried: dict[str, str] = {}
        _w3c.inject(carried)
        return carried

    def flush(self) -> None:
        """Export what was noted, for a moment at most."""
        provider = trace.get_tracer_provider()
        if isinstance(provider, TracerProvider):
            provider.force_flush(_FLUSH_MILLISECONDS)


class _Span:
    """A span, current between enter and exit."""

    def __init__(self, span: trace.Span, parent: Context | None) -> None:
        self._span = span
        self._context = trace.set_span_in_context(span, parent)
        self._token: Token[Context] | None = None

    @property
    def carrier(self) -> tracing.Carrier:
        carried: dict[str, str] = {}
        _w3c.inject(carried, self._context)
        return carried

    def tell(self, **attributes: Any) -> None:
        for key, value in attributes.items():
            self._span.set_attribute(_name(key), value)

    def fail(self, why: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, why))

    def __enter__(self) -> Self:
        self._token = context.attach(self._context)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._token is not None:
            context.detach(self._token)
        if kind is not None:  # its name: what it says may hold more than is meant to be seen
            self._span.set_status(Status(StatusCode.ERROR, kind.__name__))
        self._span.end()


def _name(key: str) -> str:
    return key.replace("__", " ").replace("_", ".").replace(" ", "_")


class _Exporter(SpanExporter):
    """OTLP over HTTP, over connections of this process: a child must not speak on those of its parent."""

    def __init__(self) -> None:
        self._pid = 0
        self._inner: OTLPSpanExporter | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        if self._inner is None or self._pid != os.getpid():
            self._pid, self._inner = os.getpid(), OTLPSpanExporter()
        return self._inner.export(spans)

    def shutdown(self) -> None:
        """Close the connections, and give up what cannot be sent."""
        if self._inner is not None and self._pid == os.getpid():
            self._inner.shutdown()  # type: ignore[no-untyped-call] # their own gap
