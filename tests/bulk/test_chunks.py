"""A chunk of a run at a worker: one call for all that can be stamped together, and an end for every file."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge_tasks.clients import ClientError, ServiceUnavailableError
from bridge_tasks.errors import InvalidRequest, JobUnknown
from bridge_tasks.ledger.packing import RunFile
from bridge_tasks.ledger.run_records import RunOptions
from bridge_tasks.sandbox.faults import Disconnect, GarbageJson, Injected, Latency, Status, StatusError
from tests.bulk.bench import Bench
from tests.clients.stamping_jobs import hash_of, new_text

Make = Callable[..., Bench]


def test_all_files_of_a_chunk_are_stamped_with_one_call(bench: Make) -> None:
    one = bench()
    texts = [f"{new_text()}\n" for _ in range(5)]
    files = [one.file(f"{number}.md", text) for number, text in enumerate(texts)]
    one.add(*files)

    done = one.stamp()

    assert (done.succeeded, done.failed, done.cancelled, done.alone) == (5, 0, 0, 0)
    assert [outcome.hash for outcome in one.outcomes] == [hash_of(text) for text in texts]
    assert all(outcome.stamp_id for outcome in one.outcomes)
    assert [one.sent(end) for end in ("/hash", "/batch", "/stamp", "/intelligence")] == [5, 1, 0, 1]
    assert one.desk.progress.state == "succeeded"


def test_every_request_carries_the_correlation_id_of_the_run(bench: Make) -> None:
    one = bench()
    one.add(*(one.file(f"{number}.md", context=f"part {number}") for number in range(3)))

    one.stamp()

    asked = [*one.stamping.asked(), *one.tree.asked()]
    assert {record.correlation_id for record in asked} == {"night-7"}
    assert one.sent("/intelligence") == 3


def test_what_cannot_be_stamped_fails_and_holds_nobody_up(bench: Make) -> None:
    one = bench()
    files = [one.file(name) for name in ("good.md", "changed.md", "gone.md")]
    Path(files[1].label).write_text("something else, and longer")
    Path(files[2].label).unlink()
    refused = RunFile({"kind": "file", "path": "/etc/x"}, "/etc/x", "", refused="is outside the allowed roots")
    one.add(*files, refused, one.file("image.png", b"\xff\xfe\x00"))

    one.stamp()

    good, changed, gone, outside, binary = one.outcomes
    assert good.state == "succeeded"
    assert changed.error == ("ContentUnavailable", f"{files[1].label} has changed since the job was made")
    assert gone.error == ("InvalidRequest", "content.path: does not exist")
    assert outside.error == ("InvalidRequest", "is outside the allowed roots")
    if one.stamping.dialect == "service":  # it stamps texts
        assert binary.error is not None
        assert "not UTF-8" in binary.error[1]
    else:
        assert binary.state == "succeeded"
    assert one.alone == []


def test_files_with_the_same_content_are_all_stamped(bench: Make) -> None:
    one = bench()
    text = f"{new_text()}\n"
    one.add(*(one.file(f"{number}.md", text) for number in range(3)))

    one.stamp()

    assert one.states == ["succeeded"] * 3
    assert len({outcome.stamp_id for outcome in one.outcomes}) == 1, "the service keeps one stamp for a text"


def test_a_file_that_fails_among_others_goes_on_alone(bench: Make) -> None:
    one, other = bench(), bench(namespace="elsewhere")
    text = f"{new_text()}\n"
    other.add(other.file("theirs.md", text))
    other.stamp()
    files = [one.file("good.md"), one.file("mine.md", text), one.file("fine.md")]
    one.add(*files)

    done = one.stamp()

    assert (done.succeeded, done.alone) == (2, 1)
    assert one.alone == [(files[1], 1)]
    assert [(outcome.state, outcome.alone) for outcome in one.outcomes] == [
        ("succeeded", False),
        (None, True),
        ("succeeded", False),
    ]
    assert not one.desk.progress.done


def test_where_the_call_as_a_whole_is_refused_each_file_goes_on_alone(bench: Make) -> None:
    one = bench()
    files = [one.file(f"{number}.md") for number in range(3)]
    one.add(*files)
    one.stamping.inject(Status(code=422, path="/batch"))

    assert one.stamp().alone == 3
    assert one.alone == [(file, index) for index, file in enumerate(files)]


def test_a_file_whose_hash_is_refused_goes_on_alone(bench: Make) -> None:
    one = bench()
    one.add(*(one.file(f"{number}.md") for number in range(3)))
    one.stamping.inject(Status(code=422, path="/hash", count=1))

    done = one.stamp()

    assert (done.succeeded, done.alone) == (2, 1)


def test_a_file_that_cannot_even_be_sent_on_has_failed(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench()
    one.add(one.file("a.md"), one.file("b.md"))
    one.stamping.inject(Status(code=422, path="/batch"))

    def refuse(_: RunFile, index: int, __: RunOptions) -> None:
        if index:
            raise InvalidRequest("content.path", "does not exist")

    monkeypatch.setattr(one, "send_alone", refuse)
    done = one.stamp()

    assert (done.alone, done.failed) == (1, 1)
    assert one.outcomes[1].error == ("InvalidRequest", "content.path: does not exist")


@pytest.mark.parametrize(
    "fault",
    [Status(code=503, path="/hash"), Status(code=503, path="/batch")],
    ids=lambda fault: fault.path,
)
def test_where_the_service_is_away_nothing_is_noted_and_the_chunk_is_tried_again(
    bench: Make, fault: Injected
) -> None:
    one = bench()
    one.add(*(one.file(f"{number}.md") for number in range(3)))
    one.stamping.inject(fault)

    with pytest.raises(ServiceUnavailableError):
        one.stamp()
    assert (one.states, one.alone) == ([None] * 3, [])

    one.stamping.controls.faults.clear()
    one.stamp(again=True)
    assert one.states == ["succeeded"] * 3


@pytest.mark.parametrize(
    "fault",
    [
        Disconnect(count=1, after_work=True, path="/batch"),
        GarbageJson(count=1, after_work=True, path="/batch"),
        StatusError(count=1, after_work=True, path="/batch"),
        Status(code=500, count=1, after_work=True, path="/batch"),
    ],
    ids=lambda fault: fault.kind,
)
def test_where_the_answer_is_lost_what_stands_is_found_and_stamped_once(bench: Make, fault: Injected) -> None:
    one = bench()
    files = [one.file(f"{number}.md") for number in range(4)]
    one.add(*files)
    one.stamping.inject(fault)

    try:
        one.stamp()
    except ClientError:
        one.stamp(again=True)

    ended = [outcome.state or "alone" for outcome in one.outcomes]
    assert set(ended) <= {"succeeded", "alone"}
    assert [one.times(file) for file in files] == [1] * 4


def test_a_chunk_that_is_stamped_by_two_workers_is_stamped_once(bench: Make) -> None:
    one = bench()
    files = [one.file(f"{number}.md") for number in range(3)]
    one.add(*files)
    first = one.stamp()
    requests = one.requests

    assert one.stamp(again=True) == first
    assert one.requests == requests, "it was noted, so nobody was asked"


def test_intelligence_that_is_away_is_marked_and_holds_nobody_up(bench: Make) -> None:
    one = bench()
    one.add(one.file("a.md"), one.file("b.md"))
    one.tree.inject(Status(code=503, path="/intelligence"))

    one.stamp()

    assert [outcome.degraded for outcome in one.outcomes] == [True, True]
    assert one.desk.progress.degraded == 2


def test_what_an_earlier_run_has_stamped_stands_unless_it_has_changed_or_is_forced(bench: Make) -> None:
    earlier, later, forced, elsewhere = bench(), bench(), bench(force=True), bench(namespace="elsewhere")
    files = [earlier.file(f"{number}.md") for number in range(3)]
    earlier.add(*files)
    earlier.stamp()
    before = earlier.requests

    later.add(*files)
    later.stamp()
    assert later.outcomes == earlier.outcomes
    assert later.requests == before

    forced.add(*files)
    forced.stamp()
    assert forced.states == ["succeeded"] * 3
    assert forced.requests > before

    before = forced.requests
    elsewhere.add(*files)
    elsewhere.stamp()
    assert elsewhere.requests > before, "it is other work"

    changed = bench()
    again = changed.file("0.md", "something else\n" + new_text())
    changed.add(again, files[1])
    before = changed.requests
    changed.stamp()
    assert changed.states[0] == "succeeded"
    assert changed.requests > before


def test_hashing_here_asks_the_service_about_one_file_only(bench: Make) -> None:
    one = bench(hashing="local")
    texts = [f"{new_text()}\n" for _ in range(4)]
    one.add(*(one.file(f"{number}.md", text) for number, text in enumerate(texts)))

    one.stamp()

    assert [outcome.hash for outcome in one.outcomes] == [hash_of(text) for text in texts]
    assert [one.sent(end) for end in ("/hash", "/batch")] == [1, 1]


def test_a_service_that_hashes_otherwise_than_we_do_is_not_believed(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = bench(hashing="local")
    one.add(one.file("a.md"), one.file("b.md"))
    monkeypatch.setattr("bridge_tasks.content.hashing.blake3_of", lambda _: "0" * 64)

    with pytest.raises(ClientError, match="not the one computed here"):
        one.stamp()
    assert (one.states, one.sent("/batch")) == ([None, None], 0)


@pytest.mark.parametrize("seconds", [0.3, 4.0], ids=["short calls", "long calls"])
def test_a_chunk_that_is_worked_on_stops_within_two_seconds_of_being_cancelled(
    bench: Make, seconds: float
) -> None:
    one = bench()
    one.add(*(one.file(f"{number}.md") for number in range(100)))
    one.stamping.inject(Latency(seconds=seconds, path="/hash"))
    stopped: list[float] = []

    def stop() -> None:
        one.desk.stop()
        stopped.append(time.monotonic())

    timer = threading.Timer(0.5, stop)
    timer.start()
    done = one.stamp()
    timer.join()

    assert time.monotonic() - stopped[0] < 2
    assert done.cancelled == 100
    assert (one.desk.progress.state, one.desk.progress.done) == ("cancelled", True)
    assert one.sent("/batch") == 0


def test_a_chunk_of_a_run_that_was_cancelled_asks_nobody(bench: Make) -> None:
    one = bench()
    one.add(one.file("a.md"))
    one.desk.stop()

    assert one.stamp().cancelled == 1
    assert (one.states, one.requests) == (["cancelled"], 0)


def test_a_chunk_of_which_there_is_no_record_is_an_error(bench: Make) -> None:
    with pytest.raises(JobUnknown):
        bench().stamp()
