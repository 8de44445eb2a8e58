"""Log lines: one for each fact, for eyes or for machines, with the correlation id, and harmless when they fail."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from bridge_tasks import correlation, events

FACTS: list[tuple[events.Event, str, str]] = [
    (events.RequestFinished("S", "op", "GET", "h", 200, None, 0.0123), "debug", "request finished"),
    (events.RetryScheduled("S", "op", 1, 0.25, "HTTP 503"), "warning", "trying again"),
    (events.CircuitChanged("S", "closed", "open", "5 failures"), "warning", "circuit changed"),
    (events.CacheAnswered("S", "op", hit=True), "debug", "cache answered"),
    (events.AnswerDegraded("S", "op", "down"), "warning", "answer degraded"),
    (events.AnswerShared("S", "op"), "debug", "answer shared"),
    (events.CallDelayed("S", "op", 0.5, "rate limit"), "debug", "call delayed"),
    (events.OutcomeRecorded(0.002), "debug", "outcome recorded"),
    (events.LedgerSilent("begin", "ConnectionError"), "error", "the ledger is out of reach"),
    (events.RunSpared("id", "busy"), "info", "not run again"),
    (events.DeadLettersDropped(3), "error", "dead letters dropped"),
    (events.MessagesRestored("w@h:1", 2), "warning", "a dead worker's jobs go to others"),
    (events.MessageRequeued("id", "bridge.bulk", 6.5), "warning", "lost message put back"),
    (events.JobsExpired(2), "error", "jobs too old"),
    (events.JobFinished("bridge.x", "id", "succeeded", 0.5, 1, None, "/a.md"), "info", "job succeeded"),
    (events.JobFinished("bridge.x", "id", "retried", 0.5, 2, "down", "/a.md"), "warning", "job put back"),
    (events.JobFinished("bridge.x", "id", "failed", 0.5, 3, "gone", None), "error", "job failed"),
    (events.CircuitFollowed("S", "closed", "open", "tripped"), "info", "circuit follows"),
    (events.ProcessSteppedAside("S", 5.0), "warning", "process steps aside"),
    (events.QueuePaused("bridge.metadata", "S", "open", "tripped", 60.0), "warning", "queue paused"),
    (events.QueueResumed("bridge.metadata", "S", "well again", 61.5), "warning", "queue resumed"),
    (events.StoreLost("ConnectionError"), "warning", "shared state is away"),
    (events.WriteUncopied(0, 1), "debug", "no replica has a write"),
    (events.CopiesChanged(enough=False), "warning", "whether replicas have what is written"),
    (events.StoreRegained(3), "warning", "shared state is back"),
    (events.StaleAnswerServed("S", "op", 12.5, "down"), "warning", "stale answer served"),
    (events.CacheEntryDropped("not JSON"), "warning", "cache entry dropped"),
    (events.CacheVoided("tag:a"), "info", "answers made void"),
    (events.RetryRefused("S", "op", 1, "HTTP 503"), "warning", "retry refused by the budget"),
    (events.CallHeldBack("S", "op", 1.5, "rate limit"), "info", "call held back"),
    (events.PatienceAsked("S", 30.0), "warning", "service asked for patience"),
    (events.PaceLowered("S", 0.7), "warning", "pace lowered"),
    (events.ReplicaEjected("S", "10.0.0.1:8053", 30.0, "failures in a row"), "warning", "replica ejected"),
    (events.ReplicasChanged("stamps.internal", 3), "info", "replicas changed"),
    (events.NameLookupFailed("stamps.internal", "gaierror"), "warning", "name not found"),
    (events.MessageDropped("bridge.metadata", "body", "is not JSON", None), "error", "message refused"),
    (events.RequestHedged("S", "get_stamp", 0.2, True), "debug", "request hedged"),
]
SUCCEEDED = next(fact for fact, _, event in FACTS if event == "job succeeded")


def told(body: str, level: str = "DEBUG", *, json_lines: bool = True) -> list[str]:
    """Run `body` in a process whose logging is ours, and return what stands on its standard error."""
    script = textwrap.dedent(
        """
        import logging
        from bridge_tasks import correlation, events
        from bridge_tasks.observability import logs
        logs.configure({level!r}, json_lines={json_lines!r})
        {body}
        """
    ).format(level=level, json_lines=json_lines, body=body)
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert child.stdout == ""
    return child.stderr.splitlines()


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_each_fact_is_one_line_at_the_level_at_which_somebody_should_read_it() -> None:
    body = "\n".join(f"events.emit(events.{fact!r})" for fact, _, _ in FACTS)
    lines = parsed(told(f"with correlation.bound('run-7'):\n{textwrap.indent(body, '    ')}"))

    assert [(line["level"], line["event"]) for line in lines] == [(level, event) for _, level, event in FACTS]
    assert {line["correlation_id"] for line in lines} == {"run-7"}
    assert all(line["timestamp"].endswith("Z") for line in lines)


def test_every_kind_of_fact_has_its_line() -> None:
    assert {type(fact) for fact, _, _ in FACTS} == set(events.Event.__args__)


def test_a_job_s_line_says_what_was_done_and_leaves_out_what_there_is_not() -> None:
    (line,) = parsed(told(f"events.emit(events.{SUCCEEDED!r})"))
    assert {key: line[key] for key in line if key not in ("timestamp", "logger", "level", "event")} == {
        "task": "bridge.x",
        "task_id": "id",
        "attempt": 1,
        "milliseconds": 500.0,
        "subject": "/a.md",
    }


def test_the_level_is_kept() -> None:
    body = "\n".join(f"events.emit(events.{fact!r})" for fact, _, _ in FACTS)
    errors = [event for _, level, event in FACTS if level == "error"]
    assert [line["event"] for line in parsed(told(body, "ERROR"))] == errors


def test_lines_for_eyes_hold_the_same_and_no_colours_where_nobody_looks() -> None:
    (line,) = told(
        "with correlation.bound('run-7'): events.emit(events.AnswerDegraded('S', 'op', 'down'))", json_lines=False
    )
    assert "answer degraded" in line
    assert "correlation_id=run-7" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_value_with_line_breaks_and_escapes_makes_no_second_line(json_lines: bool) -> None:
    fact = "events.emit(events.AnswerDegraded('S', 'op', 'one\\nERROR forged \\x1b[31m'))"
    lines = told(fact, json_lines=json_lines)
    assert len(lines) == 1
    assert "\x1b" not in lines[0]


def test_other_libraries_records_become_lines_of_the_same_shape() -> None:
    (line,) = parsed(
        told("with correlation.bound('run-7'): logging.getLogger('redis').warning('gone %s', 'away')")
    )
    assert {key: line[key] for key in ("event", "logger", "level", "correlation_id")} == {
        "event": "gone away",
        "logger": "redis",
        "level": "warning",
        "correlation_id": "run-7",
    }


def test_what_celery_and_httpx_say_of_each_job_is_not_said_twice() -> None:
    quiet = ("celery.app.trace", "celery.worker.strategy", "httpx")
    body = "\n".join(f"logging.getLogger({name!r}).info('with arguments')" for name in quiet)
    assert told(body, "INFO") == []
    assert len(told(body.replace("info", "error"), "INFO")) == len(quiet)


FAILS = """
import os
os.environ["BRIDGE_REDIS_URL"] = "redis://127.0.0.1:1/0"
from celery.app.trace import trace_task
from bridge_tasks.app import app
from bridge_tasks.tasks import check_health
def fail(*_):
    raise LookupError("not there")
def other():
    fail()
check_health.run = fail
others = app.task(other, name="others", ignore_result=True)
check_health.ignore_result = True
for name, task in (("ours", check_health), ("theirs", others)):
    trace_task(task, name, (), {}, request={"id": name, "x-correlation-id": "c"}, app=app)
"""


def test_a_task_that_fails_unforeseen_is_one_line_with_a_traceback_whoever_tells() -> None:
    lines = [line for line in parsed(told(FAILS)) if "exception" in line]
    assert [line["logger"] for line in lines] == ["bridge_tasks", "celery.app.trace"]
    ours, theirs = lines
    assert (ours["event"], ours["task_id"], ours["error"]) == ("job failed", "ours", "LookupError")
    assert "not there" in str(ours["exception"])
    assert theirs["task_id"] == "theirs"


def test_configuring_twice_does_not_double_the_lines() -> None:
    body = "logs.configure('INFO', json_lines=True)\nevents.emit(events.AnswerDegraded('S', 'op', 'down'))"
    assert len(told(body)) == 1


RAISES = """
def work(password):
    raise LookupError("not there")
try:
    work("hunter" + "2")
except LookupError:
    logging.getLogger("x").exception("it failed")
"""


def test_an_exception_is_part_of_its_json_line() -> None:
    (line,) = parsed(told(RAISES))
    assert line["event"] == "it failed"
    assert line["exception"][0]["exc_type"] == "LookupError"


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_traceback_shows_no_variable_s_value(json_lines: bool) -> None:
    shown = "\n".join(told(RAISES, json_lines=json_lines))
    assert "not there" in shown
    assert "hunter2" not in shown


@pytest.fixture
def broken() -> Iterator[list[events.Event]]:
    """A listener that hears, and fails."""
    heard: list[events.Event] = []

    def fail(event: events.Event) -> None:
        heard.append(event)
        raise RuntimeError("the listener is broken")

    stop = events.subscribe(fail)
    yield heard
    stop()


def test_a_broken_listener_hurts_neither_the_work_nor_the_other_listeners(
    broken: list[events.Event], facts: list[events.Event], caplog: pytest.LogCaptureFixture
) -> None:
    with correlation.bound("run-7"):
        events.emit(FACTS[0][0])

    assert broken == facts == [FACTS[0][0]]
    assert "a listener failed on RequestFinished" in caplog.text


def test_a_listener_hears_once_however_often_it_subscribes_and_nothing_after_it_left() -> None:
    heard: list[events.Event] = []
    stops = [events.subscribe(heard.append), events.subscribe(heard.append)]
    listening = heard.append  # a bound method is equal to itself, not identical
    stops.append(events.subscribe(listening))
    events.emit(FACTS[0][0])
    for stop in stops:
        stop()
    events.emit(FACTS[0][0])

    assert heard == [FACTS[0][0]]
