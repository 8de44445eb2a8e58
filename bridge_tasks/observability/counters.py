"""Counts facts for Prometheus: what this process did, in files that outlive it.

Figures of what became of jobs are the ledger's (`exposition`): a process that dies cannot take them along. Labels
come from a closed set (services, operations, tasks, states), never from a job.
"""

import os
import threading
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from bridge_tasks import correlation, events
from bridge_tasks.observability.exemplars import ExemplarFile
from bridge_tasks.observability.figures import SHORT, Counted, Figures, Timed

TASK_SECONDS = "bridge_task_duration_seconds"
_LONG = (*SHORT[2:], 60.0, 120.0)

_CALL = ("service", "operation")

METRICS: dict[type[events.Event], Counted] = {
    events.JobFinished: Timed(TASK_SECONDS, "Runs of tasks", ("task", "outcome"), buckets=_LONG),
    events.RequestFinished: Timed("bridge_request_duration_seconds", "HTTP exchanges", (*_CALL, "result")),
    events.RetryScheduled: Counted("bridge_retries", "Tries of a call after the first", (*_CALL, "cause")),
    events.RetryRefused: Counted("bridge_retries_refused", "Retries that the budget did not bear", _CALL),
    events.CircuitChanged: Counted("bridge_circuit_transitions", "Changes of circuits", ("circuit", "old", "new")),
    events.ProcessSteppedAside: Counted("bridge_steps_aside", "Circuits opened for one process", ("circuit",)),
    events.CallHeldBack: Counted("bridge_calls_held_back", "Calls that were not sent", (*_CALL, "cause")),
    events.CallDelayed: Timed("bridge_call_wait_seconds", "Waits before a call was sent", (*_CALL, "cause")),
    events.PatienceAsked: Counted("bridge_patience_asked", "Requests to be left alone", ("service",)),
    events.PaceLowered: Counted("bridge_pace_lowered", "Lowerings of the configured rates", ("service",)),
    events.CacheAnswered: Counted("bridge_cache_lookups", "Questions to the cache", (*_CALL, "hit")),
    events.StaleAnswerServed: Counted("bridge_cache_stale", "Answers past their time that were served", _CALL),
    events.AnswerShared: Counted("bridge_cache_coalesced", "Answers to callers who let another one ask", _CALL),
    events.CacheEntryDropped: Counted("bridge_cache_unreadable", "Entries of the cache that could not be read"),
    events.AnswerDegraded: Counted("bridge_answers_degraded", "Fallbacks in the place of answers", _CALL),
    events.RequestHedged: Counted("bridge_requests_hedged", "Reads that were sent twice", ("service", "won")),
    events.ReplicaEjected: Counted("bridge_replicas_ejected", "Replicas left alone for a while", ("service",)),
    events.NameLookupFailed: Counted("bridge_name_lookups_failed", "Names that could not be looked up"),
    events.StoreLost: Counted("bridge_shared_state_losses", "Times that shared state went away"),
    events.QueuePaused: Counted("bridge_queue_pauses", "Pauses of a queue in this worker", ("queue",)),
    events.WriteUncopied: Counted("bridge_writes_uncopied", "Writes that too few replicas of Redis had in time"),
    events.LedgerSilent: Counted("bridge_ledger_failures", "Questions that the ledger did not answer", ("what",)),
    events.OutcomeRecorded: Timed("bridge_ledger_lag_seconds", "From the end of a run to its record"),
    events.RunSpared: Counted("bridge_runs_spared", "Messages that were not run again", ("why",)),
    events.MessageRequeued: Timed(
        "bridge_lost_message_seconds", "How long lost messages were gone", buckets=_LONG
    ),
    events.JobsExpired: Counted("bridge_expiries", "Looks that found jobs beyond the greatest age"),
}
"""What is counted of which fact. The others are states that the ledger tells, or lines for people only."""


class Counters:
    """The listener of one process and of those that it forks. Thread-safe.

    Args:
        directory: where the files are.
    """

    def __init__(self, directory: str) -> None:
        self._figures = Figures(directory)
        self._exemplars = ExemplarFile(directory, TASK_SECONDS, _LONG)
        self._values = {kind: _values(metric) for kind, metric in METRICS.items()}
        self._lock = threading.Lock()
        # A child that is forked while another thread counts would wait for that thread's lock for ever.
        os.register_at_fork(
            before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._lock.release
        )

    def listen(self, event: events.Event) -> None:
        """Count one fact."""
        kind = type(event)
        values = self._values.get(kind)
        if values is None:
            return
        metric, told = METRICS[kind], values(event)
        with self._lock:
            if isinstance(metric, Timed):
                seconds: float = event.seconds  # type: ignore[union-attr,assignment] # each timed fact has them
                self._figures.observe(metric, told, seconds)
                if kind is events.JobFinished:
                    self._exemplars.note(metric.labels, told, seconds, correlation.current())
            else:
                self._figures.count(metric, told)

    def close(self) -> None:
        """Close the files; they stay."""
        with self._lock:
            self._figures.close()
            self._exemplars.close()


def _values(metric: Counted) -> Callable[[Any], tuple[Any, ...]]:
    """Make what reads a fact's labels."""
    if not metric.labels:
        return lambda _: ()
    if "result" in metric.labels:  # an exchange: its status, or what came instead
        return lambda event: (event.service, event.operation, event.status or event.error)
    fields = [_FIELDS.get(label, label) for label in metric.labels]
    if len(fields) == 1:
        one = attrgetter(fields[0])
        return lambda event: (one(event),)
    return attrgetter(*fields)


_FIELDS = {"circuit": "name"}
"""What a label's field is called where that is not the same."""
