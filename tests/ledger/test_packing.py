"""What a run keeps of its files comes out as it went in, and takes little."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.errors import ClientError, JobCancelled
from bridge_tasks.ledger import Outcome
from bridge_tasks.ledger.packing import (
    FileOutcome,
    RunFile,
    pack_files,
    pack_outcomes,
    unpack_files,
    unpack_outcomes,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
SIZES = st.integers(0, 2**53)


def file_content(path: str, size: int | None, modified: int | None) -> dict[str, Any]:
    told = {"kind": "file", "path": path, "size": size, "modified": modified}
    return {name: value for name, value in told.items() if value is not None}


CONTENTS = st.one_of(
    st.builds(file_content, TEXT, st.none() | SIZES, st.none() | SIZES),
    st.fixed_dictionaries({"kind": st.just("inline"), "data": TEXT}),
    st.fixed_dictionaries({"kind": st.just("url"), "url": TEXT}),
)
FILES = st.builds(
    RunFile, CONTENTS, TEXT, st.sampled_from(["docs", "code", "é"]), st.none() | TEXT, st.none() | TEXT
)
OUTCOMES = st.builds(
    FileOutcome,
    st.sampled_from([None, "succeeded", "failed", "cancelled"]),
    hash=st.none() | TEXT,
    stamp_id=st.none() | TEXT,
    stamp_hash=st.none() | TEXT,
    degraded=st.booleans(),
    error=st.none() | st.tuples(TEXT, TEXT),
    alone=st.booleans(),
)


@given(st.lists(FILES, max_size=20))
def test_files_come_out_as_they_went_in(files: list[RunFile]) -> None:
    assert unpack_files(pack_files(files)) == files


@given(st.lists(FILES, max_size=5))
def test_files_that_name_themselves_come_out_as_they_went_in(files: list[RunFile]) -> None:
    named = [RunFile(f.content, f.content.get("path", f.label), f.context) for f in files]

    assert unpack_files(pack_files(named)) == named


@given(st.lists(OUTCOMES, max_size=20))
def test_outcomes_come_out_as_they_went_in(outcomes: list[FileOutcome]) -> None:
    assert unpack_outcomes(pack_outcomes(outcomes)) == outcomes


def test_a_hundred_files_of_a_tree_take_less_than_forty_bytes_each() -> None:
    paths = [f"/srv/documents/projects/bridge/part-{n // 10}/chapter-{n:05}.md" for n in range(100)]
    files = [RunFile(file_content(path, 4096 + 7 * n, 10**18 + n), path, "docs") for n, path in enumerate(paths)]

    assert len(pack_files(files)) < 4000


def test_the_outcome_of_a_job_alone_is_told_as_any_other() -> None:
    stamped = Outcome(
        "succeeded", {"hash": "ab", "stamp_id": "1", "stamp_hash": "cd", "degraded": True, "path": "/a"}
    )
    failed = Outcome("failed", error=ClientError("it said no", 422))

    assert FileOutcome.of(stamped) == FileOutcome("succeeded", "ab", "1", "cd", degraded=True, alone=True)
    assert FileOutcome.of(failed) == FileOutcome("failed", error=("ClientError", "it said no"), alone=True)
    assert FileOutcome.of(Outcome("cancelled", error=JobCancelled("x"))).error == ("JobCancelled", "x")
