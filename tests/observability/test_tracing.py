"""The port to whoever traces: what travels with messages, whoever publishes them, and what else there is of it."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from celery import chord

from bridge_tasks import tracing
from bridge_tasks.tasks import check_health, generate_hash, get_stamp
from tests.tasks.sending import inline

CONTENT = inline("to be traced")
FOREIGN = f"00-{'ab' * 16}-{'cd' * 8}-01"


@dataclass
class Known:
    """A span of `Notebook`."""

    name: str
    parent: str | None
    carrier: Mapping[str, str]
    told: dict[str, Any] = field(default_factory=dict)

    def tell(self, attributes: Mapping[str, Any]) -> None:
        self.told |= attributes

    def fail(self, why: str) -> None:
        self.told["failed"] = why


class Notebook:
    """A tracer that writes down."""

    def __init__(self) -> None:
        self.spans: list[Known] = []
        self._open: list[Known] = []

    def span(
        self, name: str, kind: tracing.Kind, carried: tracing.Carrier | None, attributes: Mapping[str, Any]
    ) -> AbstractContextManager[Known]:
        del kind
        parent = (carried or {}).get("traceparent") or self.carrier().get("traceparent")
        own = {"traceparent": f"00-{'11' * 16}-{len(self.spans):016x}-01"}
        return self._during(Known(name, parent, own, dict(attributes)))

    @contextmanager
    def _during(self, span: Known) -> Iterator[Known]:
        self.spans.append(span)
        self._open.append(span)
        yield span
        self._open.pop()

    def carrier(self) -> tracing.Carrier:
        return self._open[-1].carrier if self._open else {}

    def flush(self) -> None:
        pass


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    tracer = Notebook()
    tracing.use(tracer)
    yield tracer
    tracing.use(None)


def carried(message: Any) -> tuple[str | None, list[str | None]]:
    """The trace that a message names, and those that all that will be published because of it do."""
    parsed = json.loads(message)
    _, _, embedded = json.loads(base64.b64decode(parsed["body"]))
    waiting = [*(embedded["chain"] or []), *(embedded["callbacks"] or []), *(embedded["errbacks"] or [])]
    waiting += [embedded["chord"]] if embedded["chord"] else []
    found = []
    while waiting:
        options = waiting.pop()["options"]
        found.append(options["headers"].get("traceparent"))
        waiting += [*(options.get("link") or []), *(options.get("link_error") or [])]
    return parsed["headers"].get("traceparent"), found


def work() -> Any:
    return generate_hash.s(content=CONTENT) | get_stamp.s().on_error(check_health.si())


def test_a_message_names_its_span_and_what_follows_the_trace_even_if_its_worker_dies(
    idle: redis.Redis, notebook: Notebook
) -> None:
    # The error callbacks of a killed child are published by a process that traces nothing.
    with tracing.span("submit"):
        work().apply_async(link_error=check_health.si())
        chord([generate_hash.s(content=CONTENT)], check_health.si()).apply_async()
    submit, publish, *_ = notebook.spans
    assert (publish.name, publish.parent) == ("publish bridge.generate_hash", submit.carrier["traceparent"])
    named, following = carried(idle.rpop("bridge.metadata"))
    assert named == publish.carrier["traceparent"]
    assert following == [submit.carrier["traceparent"]] * 3
    named, following = carried(idle.rpop("bridge.metadata"))
    assert named == notebook.spans[-1].carrier["traceparent"]
    assert following == [submit.carrier["traceparent"]]


def test_what_is_published_in_no_span_goes_on_with_the_trace_that_it_was_given(
    idle: redis.Redis, notebook: Notebook
) -> None:
    check_health.s().set(headers={"traceparent": FOREIGN}).apply_async()
    (publish,) = notebook.spans
    assert publish.parent == FOREIGN
    assert carried(idle.rpop("bridge.metadata"))[0] == publish.carrier["traceparent"]


def test_a_stranger_s_trace_travels_through_those_who_do_not_trace(idle: redis.Redis) -> None:
    assert not tracing.is_on()
    work().apply_async(headers={"traceparent": FOREIGN}, link_error=check_health.si())
    named, following = carried(idle.rpop("bridge.metadata"))
    assert {named, *following} == {FOREIGN}


def test_without_tracing_messages_are_as_ever(idle: redis.Redis) -> None:
    work().apply_async()
    assert carried(idle.rpop("bridge.metadata")) == (None, [None] * 2)
    assert tracing.carrier() == {}
    with tracing.span("anything", "client", {"traceparent": FOREIGN}, {"more": 1}) as span:
        span.tell({"much": "more"})
        span.fail("so what")
        assert span.carrier == {}


def test_nothing_is_imported_for_metrics_and_traces_that_nobody_wants() -> None:
    script = """
import sys
from bridge_tasks import Bridge, tracing, workflows
import bridge_tasks.worker
assert not tracing.is_on()
unwanted = ("bridge_tasks.observability.spans", "opentelemetry.exporter", "prometheus_client")
print([name for name in unwanted if name in sys.modules])  # redis-py imports the rest, where it is installed
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_tracing_without_the_extra_says_what_to_install() -> None:
    script = """
import sys
sys.modules["opentelemetry"] = None
from bridge_tasks import tracing, app
try:
    tracing.is_on()
except Exception as error:
    print(type(error).__name__, error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={"BRIDGE_TRACING__ENABLED": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ConfigurationError" in ended.stdout
    assert "bridge-tasks[otel]" in ended.stdout


def test_a_tracer_is_asked_for_once_and_late(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(tracing, "_offered", None)
    monkeypatch.setattr(tracing, "_tracer", None)
    tracing.offer(lambda: asked.append(1))
    assert not asked
    assert not tracing.is_on()
    assert tracing.carrier() == {}
    assert asked == [1]
