"""The screen, laid out from what was seen: failing things first, in words, never wider or higher than may be."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from bridge_tasks.cache import CacheStats
from bridge_tasks.cli.top_json import plain
from bridge_tasks.cli.top_screen import screen
from bridge_tasks.errors import ContentUnavailable
from bridge_tasks.ledger import JobRecord, Outcome
from bridge_tasks.ledger.overview import LedgerOverview, Told
from bridge_tasks.ledger.run_records import RunOptions, RunProgress
from bridge_tasks.overview import Overview
from bridge_tasks.resilience.policy.breaker import Cause, Circuit, CircuitState, Manual
from bridge_tasks.vitals import QueueVitals, SystemHealth

NOW = 1_800_000_000.0
CID = "0b1cbb2e-8a55-4ff7-9a39-6f3f6a1f2b3c"
QUEUES = (
    QueueVitals("bridge.metadata", 0, None),
    QueueVitals("bridge.onextree", 0, None),
    QueueVitals("bridge.bulk", 0, None),
)
CLOSED = Circuit(changed_at=0, total_calls=1000, failures=10)
OPEN = CLOSED._replace(state=CircuitState.OPEN, cause=Cause.RUN, changed_at=int(40e6), open_for=int(90e6))
EMPTY = LedgerOverview(NOW, 0, {}, (), (), ())
WELL = Overview(
    100.0,
    SystemHealth(redis=True, workers=("celery@a",), queues=QUEUES),
    EMPTY,
    {"metadata": CLOSED, "onextree": CLOSED},
    CacheStats(shared=True, size=5, max_size=1000, hits=9, misses=1),
)


def record(name: str, state: str, **more: object) -> JobRecord:
    told = {"task": "bridge.stamp_file", "correlation_id": CID, "accepted": NOW - 90, "queued": NOW - 80}
    subject = f"/srv/documents/handbook/chapters/{name}.md"
    return JobRecord(id=f"job-{name}", state=state, subject=subject, **(told | more))  # type: ignore[arg-type] # test


def failure(name: str, message: str = "the file is gone") -> Told:
    outcome = Outcome("failed", error=ContentUnavailable(message))
    return Told(record(name, "failed", ended=NOW - 40, runs=3, outcome=outcome), "handbook")


def run(**more: object) -> RunProgress:
    known: dict[str, object] = {
        "id": "5c1cbb2e-8a55-4ff7-9a39-6f3f6a1f2b3c",
        "correlation_id": CID,
        "title": "docs",
        "total": 1000,
        "succeeded": 300,
        "failed": 12,
        "cancelled": 0,
        "degraded": 0,
        "chunks": 8,
        "settled": 2,
        "sealed": True,
        "stopped": False,
        "accepted": NOW - 60,
        "ended": None,
        "options": RunOptions("handbook"),
    }
    return RunProgress(**(known | more))  # type: ignore[arg-type] # test


def lines(
    seen: Overview, before: Overview | None = None, *, width: int = 80, height: int | None = None
) -> list[str]:
    out = Console(file=io.StringIO(), width=width, height=height or 200)
    out.print(screen(seen, before, title="bridge-tasks top", width=width, height=height))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


def text(seen: Overview, before: Overview | None = None) -> str:
    return "\n".join(lines(seen, before))


def ledger(**more: object) -> Overview:
    return replace(WELL, ledger=replace(EMPTY, **more))  # type: ignore[arg-type] # test


def test_a_run_that_is_being_submitted_has_no_share_yet() -> None:
    assert "docs in handbook: submitting, 312 of 1000 so far, 12 failed" in text(ledger(runs=(run(sealed=False),)))


def test_a_run_of_which_no_more_comes_is_a_concern_once_it_is_old() -> None:
    done = run(sealed=False, succeeded=1000, failed=0)
    first, what, do, *_ = lines(ledger(runs=(replace(done, accepted=NOW - 301),)))
    assert "LOOK AT THIS" in first
    assert what.startswith("docs: 1000 files sent, all ended, and not submitted to its end")
    assert do.strip() == f"bridge-tasks status {done.id}  # says how to go on"

    for other in (done, run(sealed=False, accepted=NOW - 301), replace(done, accepted=NOW - 301, stopped=True)):
        assert "ALL WELL" in lines(ledger(runs=(other,)))[0]


def test_a_fleet_that_is_well_says_so() -> None:
    first, *rest = lines(WELL)
    assert first.rstrip().endswith("ALL WELL")
    assert "metadata    well for 2 min" in rest
    assert "Cache       5 of 1000 answers, 90% of questions answered from it" in rest
    assert plain(WELL, None)["concerns"] == []


def test_a_failure_says_what_why_since_when_for_whom_and_what_to_do() -> None:
    told = text(ledger(failures=(failure("deploy"),), failed_lately=1))
    assert "stamp_file /srv/documents/handbook/chapters/deploy.md  40 s ago, after 3 runs" in told
    assert "ContentUnavailable: the file is gone" in told
    assert f"  in handbook: bridge-tasks status {CID}" in told
    assert "1 job failed for good within the last hour\n  bridge-tasks dead list" in told


def test_failing_things_come_first() -> None:
    seen = replace(
        ledger(failures=(failure("a"),), failed_lately=1), circuits={"metadata": OPEN, "onextree": CLOSED}
    )
    _, first, hint, second, *_ = lines(seen)
    assert first == "metadata is cut off for 1 min: calls failed in a row; tried again in 30 s"
    assert hint == "  bridge-tasks breaker list"
    assert second.startswith("1 job failed for good")


def test_a_circuit_held_by_hand_says_how_to_end_it() -> None:
    held = OPEN._replace(manual=Manual.HELD, cause=Cause.OPENED)
    told = text(replace(WELL, circuits={"metadata": held}))
    assert "metadata is cut off by hand for 1 min: somebody ordered it; its jobs wait" in told
    assert "bridge-tasks breaker reset metadata" in told


def test_nobody_at_work_is_told_with_what_waits() -> None:
    health = SystemHealth(redis=True, workers=(), queues=(QueueVitals("bridge.bulk", 7, 900.0),))
    assert lines(replace(WELL, health=health))[1] == "7 jobs wait, and no worker lives"


def test_workers_that_do_not_keep_up_and_a_job_that_hangs_are_told() -> None:
    health = replace(WELL.health, queues=(QueueVitals("bridge.bulk", 7, 900.0),))
    hangs = Told(record("slow", "running", begun=NOW - 4000), "", "celery@a")
    told = text(replace(ledger(oldest=(hangs,)), health=health))
    assert "bridge.bulk holds 7 jobs for up to 15 min: workers do not keep up" in told
    assert "slow.md is worked on for 67 min\n  bridge-tasks status job-slow" in told


def test_old_failures_are_told_as_such() -> None:
    assert "4 jobs failed for good earlier" in text(replace(WELL, health=replace(WELL.health, dead_letters=4)))


def test_a_redis_out_of_reach_is_all_there_is_to_tell() -> None:
    away = Overview(100.0, SystemHealth(redis=False), None, {"metadata": None})
    assert [line.rstrip() for line in lines(away)][1:] == [
        "Redis is out of reach: nothing is known, and nothing goes on",
        "  bridge-tasks check",
    ]
    assert plain(away, None)["redis"] is False


def test_rates_are_told_from_two_looks() -> None:
    later = replace(ledger(runs=(run(succeeded=388),)), taken=102.0)
    later = replace(later, circuits={"metadata": CLOSED._replace(total_calls=1100, failures=35)})
    told = text(later, ledger(runs=(run(succeeded=188),)))
    assert "metadata    well for 2 min, 50 calls/s, 25% fail" in told
    assert "docs in handbook: running, 400 of 1000 (40%), 12 failed, 100/s, 6.0 s left" in told
    (one,) = plain(later, ledger(runs=(run(succeeded=188),)))["runs"]
    assert (one["per_second"], one["namespace"]) == (100.0, "handbook")


def test_a_service_that_nobody_calls_says_so() -> None:
    assert "metadata    well for 2 min, idle" in text(replace(WELL, taken=110.0), WELL)
    assert "metadata    not called yet" in text(replace(WELL, circuits={"metadata": Circuit()}))


def test_a_run_that_ended_long_ago_is_shown_no_more() -> None:
    assert "Runs" not in text(ledger(runs=(run(ended=NOW - 3600),)))
    assert "ended 1 min ago" in text(ledger(runs=(run(ended=NOW - 60),)))


CROWDED = replace(
    ledger(
        failures=tuple(failure(f"{name}" * 40, "why " * 60) for name in "abcde"),
        failed_lately=5,
        oldest=tuple(Told(record(name * 30, "waiting"), "n" * 60) for name in "fghij"),
        runs=(run(), run(title="t" * 200)),
        open={"bridge.bulk": 12},
    ),
    circuits={"metadata": OPEN, "onextree": OPEN},
    health=SystemHealth(
        redis=True,
        workers=tuple(f"celery@{number}.fleet.example" for number in range(40)),
        queues=QUEUES,
        dead_letters=9,
    ),
)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 30), (60, 20), (200, 50)])
def test_it_is_never_wider_or_higher_than_the_terminal(width: int, height: int) -> None:
    shown = lines(CROWDED, width=width, height=height)
    assert len(shown) <= height
    assert max(map(len, shown)) <= width


def test_at_80_by_24_something_of_everything_urgent_is_seen() -> None:
    told = "\n".join(lines(CROWDED, height=24))
    for part in (
        "metadata is cut off",
        "onextree is cut off",
        "bridge.bulk",
        "40: celery@0",
        "Failed last",
        "Runs",
    ):
        assert part in told


def test_a_name_that_would_play_with_the_terminal_is_shown_escaped() -> None:
    told = Told(record("x", "waiting", correlation_id="\x1b[2J"), "\x1b[31m")
    shown = text(ledger(oldest=(replace(told, record=replace(told.record, subject="\x1b]0;a\x07")),)))
    assert "\x1b" not in shown
