"""Each fault really happens, to whom it was meant, and leaves the service well."""

import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from bridge_tasks.sandbox.control import Controls, controls_of
from bridge_tasks.sandbox.faults import (
    Disconnect,
    Drip,
    Faults,
    GarbageJson,
    Hang,
    HugeJson,
    Latency,
    Reset,
    Status,
    StatusError,
    Truncate,
    WrongContentType,
)
from bridge_tasks.sandbox.metadata_service import create_app
from bridge_tasks.sandbox.server import running

PREFIX = "/api/v1/metadata-stamping"
STAMP = {"content": "hello", "file_path": "a.txt"}
HELLO = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app()


@pytest.fixture(scope="module")
def url(app: FastAPI) -> Iterator[str]:
    with running(app) as url:
        yield url


@pytest.fixture
def controls(app: FastAPI) -> Iterator[Controls]:
    controls = controls_of(app)
    yield controls
    controls.faults.clear()
    controls.records.clear()


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=5) as client:
        yield client


def stamp(client: httpx.Client, **request: Any) -> httpx.Response:
    return client.post(f"{PREFIX}/stamp", json=STAMP, **request)


def test_a_fault_meets_only_the_path_and_method_and_number_of_requests_it_names(
    client: httpx.Client, controls: Controls
) -> None:
    controls.faults.add(Status(code=503, path="/stamp", method="POST", count=2))

    assert client.get("/health").status_code == 200
    assert client.get(f"{PREFIX}/stamp/{'0' * 64}").status_code == 404
    assert [stamp(client).status_code for _ in range(3)] == [503, 503, 200]


def test_a_fault_with_a_probability_meets_that_share_of_requests() -> None:
    faults = Faults(Random(7))
    faults.add(Status(code=500, probability=0.25))

    met = sum(faults.take("GET", "/") is not None for _ in range(1000))

    assert 200 < met < 300


def test_the_first_fault_in_force_wins_and_the_next_takes_over() -> None:
    faults = Faults(Random(0))
    faults.add(Status(code=500, count=1), Status(code=502, count=1))

    taken = [faults.take("GET", "/") for _ in range(3)]

    assert [getattr(fault, "code", None) for fault in taken] == [500, 502, None]


def test_faults_are_ordered_shown_and_lifted_over_http(client: httpx.Client, controls: Controls) -> None:
    ordered = client.post("/_sandbox/faults", json=[{"kind": "status", "code": 429, "path": "/stamp"}])

    assert ordered.status_code == 200
    assert client.get("/_sandbox/faults").json()[0]["code"] == 429
    assert stamp(client).status_code == 429
    client.delete("/_sandbox/faults")
    assert stamp(client).status_code == 200
    assert not controls.faults.in_force


@pytest.mark.parametrize(
    "order",
    [{"kind": "no such fault"}, {"kind": "status", "code": 200}, {"kind": "latency"}, {"kind": "reset", "x": 1}],
)
def test_a_fault_that_makes_no_sense_is_refused(client: httpx.Client, order: dict[str, Any]) -> None:
    assert client.post("/_sandbox/faults", json=[order]).status_code == 422


def test_latency_delays_the_answer_after_the_work_is_done(client: httpx.Client, controls: Controls) -> None:
    controls.faults.add(Latency(seconds=0.3, jitter=0.05, count=1))

    with pytest.raises(httpx.ReadTimeout):
        stamp(client, timeout=0.1)

    assert client.get(f"{PREFIX}/stamp/{HELLO}").status_code == 200


def test_an_error_status_comes_with_the_retry_after_it_was_given(client: httpx.Client, controls: Controls) -> None:
    controls.faults.add(
        Status(code=503, count=1),
        Status(code=429, retry_after=1.2, count=1),
        Status(code=503, retry_after=30, as_date=True, count=1),
    )

    plain, seconds, date = (stamp(client).headers.get("retry-after") for _ in range(3))

    assert plain is None
    assert seconds == "2"
    assert date is not None
    assert 28 <= parsedate_to_datetime(date).timestamp() - time.time() <= 30


def test_refused_connections_are_accepted_again_on_the_same_port(client: httpx.Client) -> None:
    client.post("/_sandbox/faults", json=[{"kind": "refuse", "seconds": 0.2}])

    # The listener closes right after the answer has left.
    deadline = time.monotonic() + 5
    refused = False
    while time.monotonic() < deadline:
        try:
            answer = client.get("/health")
        except httpx.ConnectError:
            refused = True
        except (httpx.RemoteProtocolError, httpx.ReadError):
            continue  # a connection made before, closed under us
        else:
            if refused:
                break

    assert refused
    assert answer.status_code == 200


def test_a_reset_connection_gives_a_real_tcp_reset(url: str, controls: Controls) -> None:
    controls.faults.add(Reset(count=1))
    host, port = url.removeprefix("http://").split(":")

    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: sandbox\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_disconnect_is_a_clean_close_without_an_answer(url: str, controls: Controls) -> None:
    controls.faults.add(Disconnect(count=1))
    host, port = url.removeprefix("http://").split(":")

    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: sandbox\r\n\r\n")

        assert connection.recv(1) == b""


def test_work_may_be_done_before_its_answer_is_lost(client: httpx.Client, controls: Controls) -> None:
    content = {"content": "stamped and lost", "file_path": "b.txt"}
    controls.faults.add(Reset(count=1, after_work=True))

    with pytest.raises(httpx.ReadError):
        client.post(f"{PREFIX}/stamp", json=content)
    client.post(f"{PREFIX}/stamp", json=content)

    first, second = controls.records.select(path="/stamp")
    assert (first.fault, first.status) == ("reset", None)
    assert first.file_hash == second.file_hash


def test_a_hang_ends_when_the_client_leaves(client: httpx.Client, controls: Controls) -> None:
    controls.faults.add(Hang(count=1))

    with pytest.raises(httpx.ReadTimeout):
        stamp(client, timeout=0.1)

    wait_until_idle(controls)
    assert stamp(client).status_code == 200


def test_a_hang_ends_when_the_faults_are_lifted(url: str, controls: Controls) -> None:
    controls.faults.add(Hang(count=1))
    host, port = url.removeprefix("http://").split(":")

    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: sandbox\r\n\r\n")
        wait_until(lambda: not controls.faults.in_force)
        controls.faults.clear()

        assert connection.recv(1) == b""


def test_a_dripped_body_has_its_head_at_once_and_comes_whole(client: httpx.Client, controls: Controls) -> None:
    controls.faults.add(Drip(size=4, seconds=0.01, count=1))

    with client.stream("GET", "/health") as answer:
        pieces = list(answer.iter_raw())

    assert b"".join(pieces) == b'{"status":"ok","service":"metadata-stamping"}'
    assert len(pieces) > 3


def test_a_truncated_body_is_shorter_than_its_head_says(client: httpx.Client, controls: Controls) -> None:
    controls.faults.add(Truncate(count=1))

    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        stamp(client)

    assert stamp(client).status_code == 200


def test_wrong_answers_come_with_status_200(client: httpx.Client, controls: Controls) -> None:
    controls.faults.add(
        WrongContentType(count=1),
        GarbageJson(count=1),
        StatusError(count=1, message="no"),
        HugeJson(size=200_000, count=1),
    )

    page, garbage, error, huge = (stamp(client) for _ in range(4))

    assert {page.status_code, garbage.status_code, error.status_code, huge.status_code} == {200}
    assert page.headers["content-type"].startswith("text/html")
    with pytest.raises(ValueError, match="codec"):
        garbage.json()
    assert error.json()["status"] == "error"
    assert error.json()["error"] == "no"
    assert len(huge.json()["data"]["padding"]) == 200_000
    assert "content-length" not in huge.headers


async def test_a_fault_that_needs_a_socket_says_so_in_process() -> None:
    app = create_app()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        refused = await client.post("/_sandbox/faults", json=[{"kind": "refuse", "seconds": 1}])
        assert refused.status_code == 501

        controls_of(app).faults.add(Reset())
        with pytest.raises(RuntimeError, match="needs a socket"):
            await client.get("/health")


def test_every_request_is_recorded_with_its_correlation_id_and_sizes(
    client: httpx.Client, controls: Controls
) -> None:
    headers = {"X-Correlation-ID": "abc", "User-Agent": "omninode-bridge/test"}
    stamp(client, headers=headers)
    client.get("/health", headers={"X-Correlation-ID": "other"})

    (record,) = client.get("/_sandbox/requests", params={"correlation_id": "abc"}).json()

    assert record["path"] == f"{PREFIX}/stamp"
    assert record["headers"]["user-agent"] == "omninode-bridge/test"
    assert record["file_hash"] == HELLO
    assert record["status"] == 200
    assert record["body_size"] == int(record["headers"]["content-length"])
    assert len(controls.records.select(path="/health")) == 1


def test_counts_name_operations_statuses_and_faults(client: httpx.Client, controls: Controls) -> None:
    controls.faults.add(Status(code=503, count=1))
    stamp(client)
    stamp(client)
    client.get(f"{PREFIX}/stamp/{HELLO}")

    counts = client.get("/_sandbox/counts").json()

    assert counts["total"] == 3
    assert counts["operations"] == {f"POST {PREFIX}/stamp": 2, f"GET {PREFIX}/stamp/*": 1}
    assert counts["statuses"] == {"200": 2, "503": 1}
    assert counts["faults"] == {"status": 1}
    assert (counts["in_flight"], counts["peak_in_flight"]) == (0, 1)


def wait_until_idle(controls: Controls) -> None:
    wait_until(lambda: controls.records.in_flight == 0)


def wait_until(condition: Any, timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
