"""The chain hash | intelligence | stamp: alone and inside every canvas, whole, degraded and broken."""

from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group

from bridge_tasks import workflows
from bridge_tasks.bridge import Bridge
from bridge_tasks.errors import ServiceUnavailableError
from bridge_tasks.models.content import InlineContent
from bridge_tasks.models.stamping import Stamped
from bridge_tasks.tasks import check_health, get_stamp
from tests.workers import PATIENCE, Pool


@pytest.fixture
def page(documents: Path, request: pytest.FixtureRequest) -> Path:
    """A file that only this test stamps."""
    path = documents / f"{request.node.name[:40].replace('[', '-').replace(']', '')}.md"
    path.write_text(f"# {request.node.name}\n")
    return path


def steps(pool: Pool, cid: str | None = None) -> list[str]:
    """What was asked of the services for the job itself, in order."""
    ends = [record["path"].rpartition("/")[2] for record in pool.sandbox.asked(cid)]
    return [end for end in ends if end in ("hash", "intelligence", "stamp")]


def result(signature: Any) -> Any:
    return signature.apply_async().get(timeout=PATIENCE)


def test_the_chain_hashes_then_asks_then_stamps(pool: Pool, page: Path) -> None:
    stamped = result(workflows.stamp_file(page, context=page.name, namespace="docs"))

    assert Stamped.model_validate(stamped).model_dump() == stamped
    assert (stamped["path"], stamped["namespace"], stamped["degraded"]) == (str(page), "docs", False)
    assert stamped["file_size"] == page.stat().st_size
    assert steps(pool) == ["hash", "intelligence", "stamp"]


def test_the_task_that_does_it_in_one_message_gives_the_same_result(pool: Pool, page: Path) -> None:
    arguments: dict[str, Any] = {"context": page.name, "namespace": "docs", "stamp_data": {"owner": "team"}}
    by_chain = result(workflows.stamp_file(page, **arguments))
    in_one = result(workflows.stamp_file_job(page, **arguments))

    changing = {
        "stamp",
        "created_at",
        "stamp_id",
    }  # a new text for the same stamp; a guide's stamp is new each time
    assert {key: in_one[key] for key in in_one if key not in changing} == {
        key: by_chain[key] for key in by_chain if key not in changing
    }
    assert list(in_one) == list(by_chain)
    assert [step for step in steps(pool) if step != "intelligence"] == ["hash", "stamp"] * 2


def test_content_without_a_file_is_stamped_under_the_name_it_is_given(prefork: Pool) -> None:
    stamped = result(
        workflows.stamp_file(InlineContent.of(b"inline, chained"), context="auth", file_path="notes/today.md")
    )
    assert (stamped["path"], stamped["file_size"]) == ("notes/today.md", 15)
    assert prefork.sandbox.asked(path="/stamp")


def test_chains_run_side_by_side_in_a_group(prefork: Pool, documents: Path) -> None:
    pages = [documents / f"grouped-{number}.md" for number in range(4)]
    for page in pages:
        page.write_text(page.name)
    stamped = result(group(workflows.stamp_file(page, context="authentication") for page in pages))

    assert [each["path"] for each in stamped] == [str(page) for page in pages]
    assert sorted(steps(prefork)).count("stamp") == 4


def test_chains_are_the_header_of_a_chord(prefork: Pool, documents: Path) -> None:
    pages = [documents / f"chorded-{number}.md" for number in range(3)]
    for page in pages:
        page.write_text(page.name)
    healthy = result(chord([workflows.stamp_file(page, context="auth") for page in pages], check_health.si()))

    assert healthy["metadata"]["healthy"]
    assert steps(prefork).count("stamp") == 3


def test_a_chain_continues_in_a_longer_one(prefork: Pool, page: Path) -> None:
    longer = chain(check_health.si(), workflows.stamp_file(page, context=page.name), get_stamp.s())
    found = result(longer)

    # The service's stamp is of the text, so that the hash of the bytes, with their last line feed, has none.
    assert found is None
    assert steps(prefork)[:3] == ["hash", "intelligence", "stamp"]


def test_without_onextree_the_stamp_stands_and_is_marked_as_degraded(pool: Pool, page: Path) -> None:
    pool.sandbox.order({"kind": "status", "code": 503, "path": "/intelligence"})

    chained = result(workflows.stamp_file(page, context=f"degraded {pool.name}"))
    in_one = result(workflows.stamp_file_job(page, context=f"degraded {pool.name}"))

    assert (chained["degraded"], in_one["degraded"]) == (True, True)
    assert chained["stamp_id"]


def test_a_degraded_answer_is_not_kept_as_a_good_one(prefork: Pool, page: Path) -> None:
    prefork.sandbox.order({"kind": "status", "code": 503, "path": "/intelligence"})
    assert result(workflows.stamp_file(page, context="comes back"))["degraded"]
    prefork.sandbox.heal()
    assert not result(workflows.stamp_file(page, context="comes back"))["degraded"]


def test_where_intelligence_is_required_its_outage_reaches_the_caller_of_the_whole_chain(
    pool: Pool, page: Path
) -> None:
    pool.sandbox.order({"kind": "status", "code": 503, "path": "/intelligence"})
    job = Bridge().submit(workflows.stamp_file(page, context=f"required {pool.name}", fallback=False))

    with pytest.raises(ServiceUnavailableError) as down:
        job.result(PATIENCE)
    assert down.value.status == 503
    assert job.state == "failed"
    assert steps(pool) == ["hash", *["intelligence"] * 3]


def test_a_failure_of_the_first_step_reaches_the_caller_of_the_last(prefork: Pool, page: Path) -> None:
    prefork.sandbox.order({"kind": "status", "code": 503, "path": "/hash"})
    job = Bridge().submit(workflows.stamp_file(page, context="never asked"))

    with pytest.raises(ServiceUnavailableError):
        job.result(PATIENCE)
    assert steps(prefork) == ["hash"] * 3


def test_building_a_canvas_runs_nothing(idle: Any, page: Path) -> None:
    workflows.stamp_file(page, context="authentication")
    workflows.stamp_file_job(page, context="authentication")
    assert idle.keys() == []
