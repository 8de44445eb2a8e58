"""One trace from the orchestrator to the services, as real processes export it."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.observability.collector import Collector, Seen, collecting
from tests.workers import PATIENCE, QUICK, eventually

ORCHESTRATOR = """
import sys
from pathlib import Path
import importlib
for name in sys.argv[4:]:
    importlib.import_module(name)
from bridge_tasks import Bridge, workflows
cid, folder = sys.argv[2], Path(sys.argv[3])
files = sorted(folder.iterdir())
if sys.argv[1] == "chain":
    print(Bridge().submit(workflows.stamp_file(files[0], context="c", correlation_id=cid)).result(30))
else:
    run = Bridge().submit(workflows.stamp_files(files, context="c", chunk_files=3), correlation_id=cid)
    print(run.wait(30))
"""
SENTRY = "tests.observability.with_sentry"


@dataclass(frozen=True, slots=True)
class Traced:
    """A traced stack."""

    environment: dict[str, str]
    services: dict[str, str]
    collector: Collector
    directory: Path
    worker: LocalProcess

    def orchestrate(self, what: str, cid: str) -> None:
        modules = [SENTRY] if SENTRY in self.worker.command else []
        command = [sys.executable, "-c", ORCHESTRATOR, what, cid, str(self.directory / "files"), *modules]
        ended = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr + self.worker.tail()

    def order(self, *faults: dict[str, Any]) -> None:
        httpx.post(f"{self.services['metadata_url']}/_sandbox/faults", json=list(faults)).raise_for_status()


@pytest.fixture(scope="module", params=["alone", "with Sentry"])
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    directory = tmp_path_factory.mktemp("traced").resolve()
    (directory / "files").mkdir()
    for number in range(7):
        (directory / "files" / f"{number}.md").write_text(f"{request.param} {number}\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "OTEL_"))}
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        environment = {
            **inherited,
            **QUICK,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "BRIDGE_REDIS_URL": stack.enter_context(PrivateRedis()).url,
            "BRIDGE_CONTENT__ROOTS": str(directory),
            "BRIDGE_METADATA__RETRY__ATTEMPTS": "2",
            "BRIDGE_TRACING__ENABLED": "true",
            "BRIDGE_TRACING__SHARE": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        command = [sys.executable, "-m", "bridge_tasks.sandbox", "--traces"]
        command += ["--metadata-port=0", "--onextree-port=0"]
        sandbox = LocalProcess(command, directory=directory, name="sandbox", environment=environment)
        stack.callback(sandbox.kill)  # what they have to tell has arrived by then
        sandbox.start()
        sandbox.wait_ready(lambda: "onextree_url" in sandbox.tail(), PATIENCE)
        services = json.loads(sandbox.tail().splitlines()[-1])
        environment |= {
            "BRIDGE_METADATA__URLS": services["metadata_url"],
            "BRIDGE_ONEXTREE__URLS": services["onextree_url"],
        }
        modules = ["-I", SENTRY] if request.param == "with Sentry" else []
        command = [sys.executable, "-m", "celery", "-A", "bridge_tasks.app", "worker", "-c", "2", *modules]
        worker = LocalProcess(command, directory=directory, name="worker", environment=environment)
        stack.callback(worker.kill)
        worker.start()
        worker.wait_ready(lambda: " ready." in worker.log.read_text(), PATIENCE)
        yield Traced(environment, services, collector, directory, worker)


def named(spans: list[Seen], kind: str) -> Counter[str]:
    """How many spans of a kind there are of each name, without what the first call of a process asks besides."""
    return Counter(span.name for span in spans if span.kind == kind and "find_routes" not in span.name)


def arrived(traced: Traced, cid: str, runs: int) -> list[Seen]:
    """The spans of some work, once there are so many runs of tasks, and nothing is missing between them."""

    def complete() -> bool:
        spans = traced.collector.of(cid)
        known, parents = {span.id for span in spans}, {span.parent for span in spans}
        calls = {span.id for span in spans if span.kind == "client"}
        return named(spans, "consumer").total() == runs and calls <= parents <= known | {""}

    assert eventually(complete, 20), traced.worker.tail()
    return traced.collector.of(cid)


def assert_is_one_trace(spans: list[Seen], cid: str) -> None:
    """All have the same trace, all but the first a parent in it, and each call the service that served it."""
    assert len({span.trace for span in spans}) == 1
    known = {span.id: span for span in spans}
    assert len(known) == len(spans)
    roots = [span for span in spans if span.parent not in known]
    assert [(root.name.split()[0], root.parent) for root in roots] == [("submit", "")]
    served = [known[span.parent].id for span in spans if span.kind == "server"]
    assert sorted(served) == sorted(span.id for span in spans if span.kind == "client")
    parents = {(span.kind, known[span.parent].kind) for span in spans if span.parent in known}
    assert {("client", "consumer"), ("consumer", "producer")} <= parents
    assert {parent for kind, parent in parents if kind in ("client", "consumer")} == {"consumer", "producer"}
    ours = [span for span in spans if span.kind in ("producer", "consumer", "client")]
    assert {span.told["bridge.correlation_id"] for span in ours} == {cid}, ours


def test_a_chain_with_a_retry_is_one_trace(traced: Traced) -> None:
    traced.order({"kind": "status", "code": 503, "path": "/hash", "count": 3})
    traced.orchestrate("chain", "chain-1")

    spans = arrived(traced, "chain-1", 4)
    assert_is_one_trace(spans, "chain-1")
    steps = ["generate_hash", "generate_hash", "get_intelligence", "create_stamp"]
    assert named(spans, "producer") == Counter(f"publish bridge.{step}" for step in steps)
    assert named(spans, "consumer") == Counter(f"run bridge.{step}" for step in steps)
    hashes = [span for span in spans if span.name == "POST generate_hash"]
    assert sorted(span.told["http.response.status_code"] for span in hashes) == [200, 503, 503, 503]
    assert sorted(span.told["bridge.try"] for span in hashes) == [1, 1, 2, 2]
    assert sum(span.failed for span in hashes) == 3
    runs = [span for span in spans if span.name == "run bridge.generate_hash"]
    assert sorted(span.told["celery.state"] for span in runs) == ["RETRY", "SUCCESS"]
    assert {span.service for span in spans} == {"bridge-tasks", "bridge-sandbox"}
    asked = httpx.get(f"{traced.services['metadata_url']}/_sandbox/requests", params={"path": "/stamp"}).json()
    sent = [one["headers"] for one in asked if one["headers"].get("x-correlation-id") == "chain-1"]
    assert [one["traceparent"].split("-")[1] for one in sent] == [spans[0].trace] * len(asked)


def test_a_bulk_run_is_one_trace(traced: Traced) -> None:
    traced.orchestrate("run", "run-1")

    spans = arrived(traced, "run-1", 3)
    assert_is_one_trace(spans, "run-1")
    assert named(spans, "producer") == {"publish bridge.stamp_chunk": 3}
    assert named(spans, "consumer") == {"run bridge.stamp_chunk": 3}
    assert named(spans, "client")["POST batch_create_stamps"] == 3
