"""The log of effects tells what was really done: how often each file was stamped, for whom, and none twice."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from bridge_tasks.sandbox import effect_log
from bridge_tasks.sandbox.database import Database
from bridge_tasks.sandbox.effect_log import EffectLog
from bridge_tasks.sandbox.keys import Asked
from bridge_tasks.sandbox.metadata_service import create_app
from bridge_tasks.sandbox.refusals import Dialect
from bridge_tasks.sandbox.server import running
from bridge_tasks.sandbox.stamp_store import NewStamp, StampStore

PREFIX: dict[Dialect, str] = {"service": "/api/v1/metadata-stamping", "guide": ""}


@pytest.fixture(params=["service", "guide"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    dialect: Dialect = request.param
    return dialect


@pytest.fixture
def client(dialect: Dialect) -> Iterator[httpx.Client]:
    with running(create_app(dialect)) as url, httpx.Client(base_url=url) as client:
        yield client


def body(**given: Any) -> dict[str, Any]:
    text = f"text {uuid4()}"
    return {"content": text, "file_hash": text, "file_path": f"/{text}", "file_size": 1, **given}


def effects(client: httpx.Client, **query: Any) -> Any:
    return client.get("/_sandbox/effects", params=query).json()


def test_what_was_stamped_twice_is_over(client: httpx.Client, dialect: Dialect) -> None:
    once, twice = body(namespace="mine"), body(namespace="mine")
    for request, correlation_id in ((once, "a"), (twice, "b"), (twice, "c")):
        headers = {"X-Correlation-ID": correlation_id}
        client.post(f"{PREFIX[dialect]}/stamp", json=request, headers=headers).raise_for_status()

    all_of_them, over = effects(client), effects(client, over=1)

    totals = {"performed": 3, "files": 2, "over": 1, "forgotten": 0}
    assert totals.items() <= all_of_them.items()
    assert totals.items() <= over.items()
    assert [(one["file_path"], one["times"]) for one in all_of_them["effects"]] == [
        (once["file_path"], 1),
        (twice["file_path"], 2),
    ]
    (double,) = over["effects"]
    assert double["file_path"] == twice["file_path"]
    assert sorted(double["correlation_ids"]) == ["b", "c"]
    assert double["namespaces"] == ["mine"]
    assert double["first_at"] <= double["last_at"]


def test_one_text_at_two_paths_is_two_files(client: httpx.Client, dialect: Dialect) -> None:
    request = body()
    for path in ("/a", "/b"):
        client.post(f"{PREFIX[dialect]}/stamp", json={**request, "file_path": path}).raise_for_status()

    assert (effects(client)["files"], effects(client)["over"]) == (2, 0)


def test_items_that_succeed_are_effects_and_those_that_fail_are_none(
    client: httpx.Client, dialect: Dialect
) -> None:
    item = body()
    for _ in range(2):
        client.post(f"{PREFIX[dialect]}/batch", json={"items": [item, item]}).raise_for_status()

    assert (effects(client)["performed"], effects(client)["over"]) == (1, 0)


def test_what_only_reads_is_no_effect(client: httpx.Client, dialect: Dialect) -> None:
    client.post(f"{PREFIX[dialect]}/hash", files={"file": b"x"}).raise_for_status()
    client.post(f"{PREFIX[dialect]}/validate", json={"content": "x"}).raise_for_status()

    assert effects(client) == {"performed": 0, "files": 0, "over": 0, "forgotten": 0, "effects": []}


def test_the_list_is_narrowed_and_cleared(client: httpx.Client, dialect: Dialect) -> None:
    for correlation_id in ("a", "a", "b"):
        headers = {"X-Correlation-ID": correlation_id}
        client.post(f"{PREFIX[dialect]}/stamp", json=body(), headers=headers)

    assert len(effects(client, correlation_id="a")["effects"]) == 2
    assert len(effects(client, limit=1)["effects"]) == 1
    assert effects(client, limit=0)["performed"] == 3
    client.delete("/_sandbox/effects")
    assert effects(client)["performed"] == 0


def test_tens_of_thousands_of_files_are_told_and_the_oldest_forgotten_ones_counted() -> None:
    database = Database()
    store, log = StampStore(database), EffectLog(database)
    for number in range(20_000):
        stamp = NewStamp(f"{number}", f"/{number}", 1, None, {}, "n")
        store.find_or_add(stamp, Asked())

    assert len(log.files()) == log.totals()["performed"] == 20_000
    with database.writing() as connection:
        effect_log.note(connection, "h", "/p", "n", None, kept=5)
    assert log.totals() == {"performed": 5, "files": 5, "over": 0, "forgotten": 19_996}
