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
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import NonRecordingSpan, ProxyTracerProvider, SpanKind, Status, StatusCode
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


def start(service: str = "bridge-tasks", share: float = 1.0) -> tracing.Tracer:
    """Begin to trace this process.

    Args:
        service: what it is called where OTEL_SERVICE_NAME says nothing.
        share: of how many traces that begin here spans are kept, where OTEL_TRACES_SAMPLER says nothing. A trace
            that comes from elsewhere is kept if it is kept there.
    """
    told = os.environ.get("OTEL_TRACES_SAMPLER")
    ours = isinstance(trace.get_tracer_provider(), ProxyTracerProvider) and not told
    if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: service}
        sampler = None if told else ParentBasedTraceIdRatio(share)
        provider = TracerProvider(sampler, Resource.create(named))
        provider.add_span_processor(BatchSpanProcessor(_Exporter()))
        trace.set_tracer_provider(provider)
    return OpenTelemetry(follows_parents=ours)


class OpenTelemetry:
    """The tracer.

    Args:
        follows_parents: whether what is part of a trace that is not kept is never kept either.
    """

    def __init__(self, *, follows_parents: bool) -> None:
        self._follows_parents = follows_parents
        self._tracer = trace.get_tracer("bridge_tasks")

    def span(
        self, name: str, kind: tracing.Kind, carried: tracing.Carrier | None, attributes: Mapping[str, Any]
    ) -> "_Span":
        """Begin a span as the current one; of a remote parent, if one is named."""
        parent = _w3c.extract(carried, context.get_current()) if carried and carried.get("traceparent") else None
        if self._follows_parents:
            whole = trace.get_current_span(parent).get_span_context()
            if whole.is_valid and not whole.trace_flags.sampled:
                return _Span(NonRecordingSpan(whole), parent)
        cid = correlation.current()
        told = attributes if cid is None else {"bridge.correlation_id": cid, **attributes}
        return _Span(self._tracer.start_span(name, parent, _KINDS[kind], told), parent)

    def carrier(self) -> tracing.Carrier:
        """Write down the current span."""
        return _carrier(trace.get_current_span().get_span_context())

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
        return _carrier(self._span.get_span_context())

    def tell(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self._span.set_attribute(key, value)

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


def _carrier(span: trace.SpanContext) -> tracing.Carrier:
    """Write it as W3C has it; their own way to do so takes ten times as long."""
    if not span.is_valid:
        return {}
    carried = {"traceparent": f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"}
    if span.trace_state:
        carried["tracestate"] = span.trace_state.to_header()
    return carried


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
