"""What a fleet of processes offers to a service that is dead, counted where it arrives."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bridge_tasks.sandbox import metadata_service
from bridge_tasks.sandbox.faults import Injected, Reset, Status
from bridge_tasks.sandbox.redis import PrivateRedis
from tests.running_service import RunningService, serving

PROCESSES = 4
CALLS = 120

CALLER = """
import sys
from bridge_tasks.errors import ServiceUnavailableError
from bridge_tasks.runtime import current

runtime = current()
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
refused = 0
for _ in range(int(sys.argv[1])):
    try:
        runtime.run(runtime.metadata.get_stamp("ab" * 32))
    except ServiceUnavailableError:
        refused += 1
print(refused)
"""


@pytest.fixture
def dead() -> Iterator[RunningService]:
    with serving(metadata_service.create_app("service"), "service") as service:
        yield service


def run_fleet(service: RunningService, redis_url: str, **settings: str) -> int:
    """Make PROCESSES processes call at the same time; return how many of their calls failed."""
    environment = {
        "BRIDGE_REDIS_URL": redis_url,
        "BRIDGE_METADATA__URLS": service.url,
        "BRIDGE_METADATA__RETRY__INITIAL": "0.01",
        "BRIDGE_METADATA__RETRY__MAXIMUM": "0.02",
        # Without the help of the circuit breaker, which would end it all after a few calls.
        "BRIDGE_METADATA__BREAKER__FAILURE_THRESHOLD": "1000000",
        "BRIDGE_METADATA__BREAKER__FAILURE_RATE_THRESHOLD": "1",
        "BRIDGE_METADATA__BREAKER__MINIMUM_THROUGHPUT": "1000000",
        **settings,
    }
    fleet = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, str(CALLS)],
            env={"PATH": "", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    try:
        for process in fleet:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        return sum(json.loads(process.communicate("go\n", timeout=60)[0]) for process in fleet)
    finally:
        for process in fleet:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("fault", [Reset(), Status(code=503)], ids=lambda fault: fault.kind)
def test_a_dead_service_gets_at_most_a_fifth_more_than_it_would_get_when_well(
    fault: Injected, dead: RunningService
) -> None:
    dead.inject(fault)
    with PrivateRedis() as server:
        failed = run_fleet(dead, server.url)
    assert failed == PROCESSES * CALLS
    arrived = len(dead.asked())
    assert PROCESSES * CALLS < arrived <= 1.2 * PROCESSES * CALLS


def test_without_redis_each_process_keeps_to_its_own_share(dead: RunningService) -> None:
    dead.inject(Status(code=502))
    assert run_fleet(dead, "redis://127.0.0.1:1/0") == PROCESSES * CALLS
    arrived = len(dead.asked())
    assert PROCESSES * CALLS < arrived <= (1.1 * CALLS + 10) * PROCESSES


def test_a_minute_s_limit_holds_for_all_processes_together(dead: RunningService) -> None:
    with PrivateRedis() as server:
        refused = run_fleet(dead, server.url, BRIDGE_METADATA__LIMITS__PER_MINUTE__GET_STAMP="120")
    arrived = len(dead.asked("/stamp/"))
    # They take less than a minute: more than the limit would mean that somebody did not keep to it.
    assert 2 <= arrived <= 120
    assert refused == PROCESSES * CALLS - arrived


def test_one_that_is_told_to_wait_tells_all(dead: RunningService) -> None:
    dead.inject(Status(code=503, retry_after=60, count=1))
    with PrivateRedis() as server:
        refused = run_fleet(dead, server.url, BRIDGE_METADATA__RETRY__ATTEMPTS="1")
        again = run_fleet(dead, server.url, BRIDGE_METADATA__RETRY__ATTEMPTS="1")
    assert refused >= CALLS, "who was told makes no further call"
    assert again == PROCESSES * CALLS, "and all who begin later know from the start"
