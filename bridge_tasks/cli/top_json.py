"""What `bridge-tasks top` shows, as JSON, for programs. Pure."""

from collections.abc import Mapping
from typing import Any

from bridge_tasks.cli.concerns import concerns, lasts, tries_in
from bridge_tasks.cli.pace import Pace
from bridge_tasks.ledger import DeadLetter
from bridge_tasks.ledger.overview import LedgerOverview, Told
from bridge_tasks.ledger.run_records import RunProgress
from bridge_tasks.overview import Overview
from bridge_tasks.resilience.policy.breaker import Circuit


def plain(seen: Overview, before: Overview | None) -> dict[str, Any]:
    """Tell the same to a program; times are seconds."""
    pace, ledger, health = Pace(before, seen), seen.ledger, seen.health
    return {
        "redis": health.redis,
        "concerns": [{"what": one.what, "do": one.do, "bad": one.bad} for one in concerns(seen)],
        "workers": health.workers,
        "dead_letters": health.dead_letters,
        "dead_letters_last_hour": ledger.failed_lately if ledger else None,
        "queues": [
            {
                "name": queue.name,
                "waiting": queue.depth,
                "oldest_seconds": queue.oldest_seconds,
                "open": ledger.open.get(queue.name, 0) if ledger else None,
            }
            for queue in health.queues
        ],
        "services": {
            service: _plain_circuit(circuit, pace.of_calls(service, circuit), seen.taken) if circuit else None
            for service, circuit in seen.circuits.items()
        },
        "cache": None
        if seen.cache is None
        else {"size": seen.cache.size, "max_size": seen.cache.max_size, "hit_rate": round(seen.cache.hit_rate, 4)},
        "runs": [_plain_run(run, pace.of_run(run)) for run in ledger.runs] if ledger else [],
        "failed": [_plain_told(told, ledger) for told in ledger.failures] if ledger else [],
        "oldest": [_plain_told(told, ledger) for told in ledger.oldest] if ledger else [],
    }


def _plain_circuit(circuit: Circuit, calls: tuple[float, float] | None, now: float) -> dict[str, Any]:
    return {
        "state": circuit.state.value,
        "cause": circuit.cause.value,
        "seconds_in_state": round(lasts(circuit, now), 1),
        "retry_after": tries_in(circuit, now),
        "calls_per_second": round(calls[0], 2) if calls else None,
        "failing": round(calls[1], 4) if calls else None,
    }


def _plain_run(run: RunProgress, speed: float | None) -> Mapping[str, Any]:
    names = ("id", "correlation_id", "title", "state", "total", "succeeded", "failed", "cancelled", "waiting")
    told = {name: getattr(run, name) for name in names}
    namespace = run.options.namespace if run.options else None
    return {**told, "namespace": namespace, "per_second": None if speed is None else round(speed, 2)}


def _plain_told(told: Told, ledger: LedgerOverview) -> dict[str, Any]:
    record = told.record
    failed = record.state == "failed"
    error = DeadLetter(record, kept=False).error if failed else None
    since = {"failed": record.ended, "running": record.begun}.get(record.state, record.queued) or record.accepted
    return {
        "id": record.id,
        "task": record.task,
        "subject": record.subject,
        "namespace": told.namespace or None,
        "correlation_id": record.correlation_id,
        "state": record.state,
        "seconds_in_state": round(max(0.0, ledger.now - since), 1),
        "runs": record.runs,
        "worker": told.worker or None,
        "error": None if error is None else {"type": type(error).__name__, "message": str(error)},
    }
