"""Every task by its name, in every pool, over both dialects of the services."""

from pathlib import Path

import pytest

from tests.tasks.sending import done, inline
from tests.workers import Pool

HELLO = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
MISSING = "00" * 32


@pytest.fixture
def page(documents: Path, pool: Pool) -> dict[str, object]:
    """A file that only this pool has seen, as content."""
    path = documents / f"{pool.name}.md"
    path.write_text(f"# Page\n\nfor {pool.name}\n")
    return {"kind": "file", "path": str(path), "size": path.stat().st_size}


def test_generate_hash_hashes_every_form_that_a_stranger_can_send(pool: Pool, page: dict[str, object]) -> None:
    assert done("generate_hash", content=inline("hello"))["hash"] == HELLO
    hashed = done("generate_hash", content=page, namespace="docs")
    assert (len(hashed["hash"]), hashed["file_size_bytes"]) == (64, page["size"])
    assert len(pool.sandbox.asked(path="/hash")) == 2


def test_create_stamp_stamps_and_get_stamp_finds_it_again(pool: Pool) -> None:
    text = f"stamped by {pool.name}"
    file_hash = done("generate_hash", content=inline(text))["hash"]
    stamped = done(
        "create_stamp",
        file_hash=file_hash,
        file_path="/docs/a.md",
        file_size=len(text),
        namespace="docs",
        stamp_data={"owner": "team"},
        content=inline(text),
    )
    assert (stamped["path"], stamped["hash"], stamped["namespace"]) == ("/docs/a.md", file_hash, "docs")
    assert stamped["degraded"] is False

    found = done("get_stamp", file_hash=stamped["stamp_hash"], namespace="docs")
    assert found["stamp_id"] == stamped["stamp_id"]
    assert done("get_stamp", file_hash=MISSING) is None


def test_stamp_file_does_the_whole_job_and_validate_stamp_confirms_it(pool: Pool, page: dict[str, object]) -> None:
    stamped = done("stamp_file", content=page, file_path="page.md", context="authentication")
    assert (stamped["path"], stamped["file_size"], stamped["degraded"]) == ("page.md", page["size"], False)
    asked = [record["path"].rpartition("/")[2] for record in pool.sandbox.asked()]
    assert [path for path in asked if path in ("hash", "intelligence", "stamp")] == [
        "hash",
        "intelligence",
        "stamp",
    ]

    confirmed = done("validate_stamp", content=page)
    assert (confirmed["valid"], confirmed["source"]) == (True, "registry")


def test_validate_stamp_tells_a_missing_stamp_from_a_broken_one(pool: Pool) -> None:
    never = done("validate_stamp", content=inline(f"never stamped by {pool.name}"))
    assert (never["valid"], never["source"]) == (False, "none")

    forged = f"# ONEX:uid=1,hash={MISSING},ts=2026-01-01T00:00:00\nhello"
    broken = done("validate_stamp", content=inline(forged))
    assert (broken["valid"], broken["source"], broken["invalid_stamps"]) == (False, "embedded", 1)


def test_validate_protocol_answers_with_a_verdict(pool: Pool) -> None:
    verdict = done("validate_protocol", content=inline("hello"))["validation_result"]
    assert verdict["is_valid"] is False
    assert pool.sandbox.asked(path="/validate-protocol")


def test_batch_create_stamps_stamps_each_item_with_one_request(pool: Pool) -> None:
    texts = [f"item {number} of {pool.name}" for number in range(3)]
    items = [
        {
            "id": f"item-{number}",
            "file_hash": done("generate_hash", content=inline(text))["hash"],
            "file_path": f"/docs/{number}.md",
            "file_size": len(text),
            "content": inline(text),
        }
        for number, text in enumerate(texts)
    ]
    batch = done("batch_create_stamps", items=items)

    assert (batch["total"], batch["successful"], batch["failed"]) == (3, 3, 0)
    assert all("stamped_content" not in result for result in batch["results"])
    assert len(pool.sandbox.asked(path="/batch")) == 1


def test_get_intelligence_answers_with_patterns_and_confidence(pool: Pool) -> None:
    enriched = done("get_intelligence", context=f"authentication for {pool.name}")
    assert enriched["degraded"] is False
    assert enriched["patterns"]
    assert 0 < enriched["confidence"]["overall"] <= 1


def test_query_knowledge_and_navigate_tree_answer_from_the_tree(pool: Pool) -> None:
    assert any(
        "login.py" in str(found) for found in done("query_knowledge", query="login", use_cache=False)["results"]
    )
    nodes = done("navigate_tree", start_node="auth", direction="down", use_cache=False)["nodes"]
    assert any("login.py" in str(node) for node in nodes)
    assert len(pool.sandbox.asked(path="/knowledge/query") + pool.sandbox.asked(path="/tree/navigate")) == 2


def test_check_health_sees_both_services_and_their_trouble(pool: Pool) -> None:
    healthy = done("check_health")
    assert {name: (seen["healthy"], seen["circuit"]) for name, seen in healthy.items()} == {
        "metadata": (True, "closed"),
        "onextree": (True, "closed"),
    }

    pool.sandbox.order({"kind": "status", "code": 503, "path": "/health"})
    unwell = done("check_health")
    assert {name: (seen["healthy"], seen["status"]) for name, seen in unwell.items()} == {
        "metadata": (False, "unreachable"),
        "onextree": (False, "unreachable"),
    }
