"""A request with an idempotency key does its work once, in both dialects, also at once, also across a kill -9."""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from bridge_tasks.sandbox import keys
from bridge_tasks.sandbox.control import controls_of
from bridge_tasks.sandbox.database import Database
from bridge_tasks.sandbox.faults import Disconnect, Late
from bridge_tasks.sandbox.keys import Asked, Done
from bridge_tasks.sandbox.metadata_service import create_app, effects_of
from bridge_tasks.sandbox.processes import LocalProcess
from bridge_tasks.sandbox.refusals import Dialect
from bridge_tasks.sandbox.server import running
from bridge_tasks.sandbox.stamp_store import StampStore

PREFIX: dict[Dialect, str] = {"service": "/api/v1/metadata-stamping", "guide": ""}


def body(text: str | None = None, **given: Any) -> dict[str, Any]:
    """A stamp that nobody has made, in both dialects at once."""
    text = text or f"text {uuid4()}"
    return {"content": text, "file_hash": text, "file_path": f"/{text}", "file_size": len(text), **given}


class Service:
    """A sandbox that is served, and a client of it."""

    def __init__(self, app: FastAPI, dialect: Dialect, url: str) -> None:
        self.app = app
        self.client = httpx.Client(base_url=url + PREFIX[dialect], timeout=10)

    def stamp(self, request: dict[str, Any], key: str | None = '"key"') -> httpx.Response:
        return self.client.post("/stamp", json=request, headers={"Idempotency-Key": key} if key else {})

    def batch(self, *items: dict[str, Any], key: str | None = None) -> list[dict[str, Any]]:
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.client.post("/batch", json={"items": items}, headers=headers)
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["data"]["results"]
        return results

    @property
    def performed(self) -> int:
        return effects_of(self.app).totals()["performed"]


@pytest.fixture(params=["service", "guide"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    dialect: Dialect = request.param
    return dialect


def served(dialect: Dialect, **given: Any) -> Iterator[Service]:
    app = create_app(dialect, **given)
    with running(app) as url:
        service = Service(app, dialect, url)
        with service.client:
            yield service


@pytest.fixture
def service(dialect: Dialect) -> Iterator[Service]:
    yield from served(dialect)


@pytest.fixture
def unheeding(dialect: Dialect) -> Iterator[Service]:
    yield from served(dialect, heeds_keys=False)


def said(answer: httpx.Response) -> dict[str, Any]:
    """What was answered, without what two answers never share."""
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    return {name: data[name] for name in data if name not in ("performance_metrics", "op_id")}


def test_a_stamp_is_made_once_and_the_same_answer_is_given_again(service: Service) -> None:
    request = body()

    first, again = service.stamp(request), service.stamp(request)

    assert said(first) == said(again)
    assert said(first)["stamped_content"].endswith(request["content"])
    assert service.performed == 1


def test_a_bare_key_is_the_same_as_a_quoted_one(service: Service) -> None:
    request = body()

    assert said(service.stamp(request, '"key"')) == said(service.stamp(request, "key"))
    assert service.performed == 1


def test_without_a_key_or_with_another_the_work_is_done_again(service: Service) -> None:
    request = body()

    stamps = {said(service.stamp(request, key))["stamp"] for key in (None, None, "one", "another")}

    assert len(stamps) == service.performed == 4


def test_a_service_that_knows_no_keys_takes_no_notice(unheeding: Service) -> None:
    request = body()
    item = body(idempotency_key="item")

    stamps = {said(unheeding.stamp(request))["stamp"] for _ in range(2)}

    assert len(stamps) == 2
    assert [unheeding.batch(item, key="batch")[0]["success"] for _ in range(2)] == [True, False]
    assert unheeding.performed == 3


def test_one_key_for_two_requests_is_refused(service: Service, dialect: Dialect) -> None:
    service.stamp(body())

    refused = service.stamp(body())

    assert refused.status_code == 422
    if dialect == "service":
        assert refused.json()["detail"]["error"][0]["code"] == "IDEMPOTENCY_KEY_REUSED"
    else:
        assert "used before" in refused.json()["error"]
    assert service.performed == 1


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "tab\there"])
def test_what_is_no_key_is_refused(service: Service, key: str) -> None:
    request = service.client.build_request("POST", "/stamp", json=body(), headers={"Idempotency-Key": key})
    assert service.client.send(request).status_code == 400
    assert service.performed == 0


def test_a_request_that_was_refused_has_not_used_up_its_key(service: Service) -> None:
    request = body()
    assert service.stamp({**request, "file_path": ["no text"]}).status_code == 422

    assert service.stamp(request).status_code == 200
    assert service.performed == 1


@pytest.mark.parametrize("size", [10, 400_000])  # beyond 256 KiB, the work is done in threads
def test_of_many_at_once_one_does_the_work_and_all_have_its_answer(service: Service, size: int) -> None:
    request = body("x" * size, file_path="/x")

    with ThreadPoolExecutor(8) as pool:
        answers = [said(answer) for answer in pool.map(service.stamp, [request] * 8)]

    assert all(answer == answers[0] for answer in answers)
    assert service.performed == 1


def test_an_answer_that_was_lost_is_given_to_who_asks_again(service: Service) -> None:
    controls_of(service.app).faults.add(Disconnect(count=1, after_work=True, path="/stamp"))
    request = body()
    with pytest.raises(httpx.RemoteProtocolError):
        service.stamp(request)

    assert said(service.stamp(request))["stamp_id"]
    assert service.performed == 1


def test_a_request_that_is_late_finds_its_work_done(service: Service) -> None:
    controls_of(service.app).faults.add(Late(seconds=0.3, count=1, path="/stamp"))
    request = body()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(service.stamp, request)
        deadline = time.monotonic() + 5
        while not controls_of(service.app).records.in_flight:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        prompt = service.stamp(request)

    assert said(prompt) == said(late.result())
    assert service.performed == 1


def test_an_item_whose_key_was_used_has_its_former_result(service: Service) -> None:
    one, other = body(idempotency_key="one"), body(idempotency_key="other")
    (before,) = service.batch(one)

    after, fresh = service.batch(one, other)

    assert (before["success"], after["success"], fresh["success"]) == (True, True, True)
    assert (before["stamp_id"], before["stamp"]) == (after["stamp_id"], after["stamp"])
    assert service.performed == 2


def test_an_item_without_a_key_is_already_stamped(service: Service) -> None:
    item = body()
    service.batch(item)

    (again,) = service.batch(item)

    assert (again["success"], again["error"]) == (False, "file_hash is already stamped")
    assert service.performed == 1


def test_an_item_s_key_is_not_for_another_item(service: Service) -> None:
    service.batch(body(idempotency_key="key"))

    wrong, right = service.batch(body(idempotency_key="key"), body())

    assert (wrong["success"], right["success"]) == (False, True)
    assert "used before" in wrong["error"]


@pytest.mark.parametrize("key", [7, "", ["x"]])
def test_an_item_with_a_wrong_key_fails_alone(service: Service, key: Any) -> None:
    wrong, right = service.batch(body(idempotency_key=key), body())

    assert (wrong["success"], right["success"]) == (False, True)


def test_a_batch_under_one_key_is_done_once(service: Service) -> None:
    items = [body(), body(), body()]

    before, after = service.batch(*items, key="batch"), service.batch(*items, key="batch")

    assert [one["stamp"] for one in before] == [one["stamp"] for one in after]
    assert all(one["success"] for one in after)
    assert service.performed == 3
    other = service.client.post("/batch", json={"items": items[:1]}, headers={"Idempotency-Key": "batch"})
    assert other.status_code == 422


def test_a_batch_that_was_broken_off_is_finished_under_its_key(service: Service) -> None:
    item = body()
    service.batch(item, {"content": "x", "file_path": ""}, key="batch")

    kept, tried = service.batch(item, {"content": "x", "file_path": ""}, key="batch")

    assert (kept["success"], tried["success"]) == (True, False)
    assert service.performed == 1


def test_the_oldest_keys_are_forgotten() -> None:
    database = Database()
    StampStore(database)
    with database.writing() as connection:
        for number in range(10):
            keys.keep(connection, Asked(f"key {number}", "same"), Done(str(number), None), kept=3)
        held = [number for number in range(10) if keys.done(connection, Asked(f"key {number}", "same"))]

    assert held == [7, 8, 9]


def test_what_is_undone_leaves_no_key_behind() -> None:
    database = Database()
    StampStore(database)

    def fail_halfway() -> None:
        with database.writing() as connection:
            keys.keep(connection, Asked("key", "f"), Done("1", None))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    with database.reading() as connection:
        assert keys.done(connection, Asked("key", "f")) is None


@contextmanager
def alive_until_killed(process: LocalProcess) -> Iterator[str]:
    """Run a sandbox for the length of a block, give the metadata service's URL, and end it as a crash would."""
    process.start()
    try:
        process.wait_ready(lambda: "metadata_url" in process.tail(), 30)
        yield json.loads(process.tail().strip().splitlines()[-1])["metadata_url"]
    finally:
        process.kill()


def test_keys_stamps_and_effects_survive_a_kill(dialect: Dialect, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bridge_tasks.sandbox", "--metadata-port", "0", "--onextree-port", "0"]
    command += ["--dialect", dialect, "--database", str(tmp_path / "stamps.db")]
    request = body()
    answers, totals = [], []
    for life in range(2):
        process = LocalProcess(command, directory=tmp_path, name=f"sandbox-{life}")
        with alive_until_killed(process) as url, httpx.Client(base_url=url) as client:
            headers = {"Idempotency-Key": '"key"', "X-Correlation-ID": "cid"}
            answers.append(client.post(f"{PREFIX[dialect]}/stamp", json=request, headers=headers))
            totals.append(client.get("/_sandbox/effects").json())

    assert said(answers[0]) == said(answers[1])
    assert totals[0] == totals[1]
    assert (totals[0]["performed"], totals[0]["effects"][0]["correlation_ids"]) == (1, ["cid"])
