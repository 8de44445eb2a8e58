"""Celery's signals in a worker: logging set up once, the runtime closed with its process, wrong pools refused.

Handlers here must be quick and must not raise (Celery logs and swallows), but for `worker_init`, whose
`SystemExit` is how a worker is kept from starting.
"""

import logging
from typing import Any

from celery.signals import (
    celeryd_init,
    setup_logging,
    task_postrun,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)
from kombu.exceptions import OperationalError

from bridge_tasks import runtime, tracing
from bridge_tasks.errors import BridgeError
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.workers import name_worker, this_worker
from bridge_tasks.observability import logs
from bridge_tasks.settings import load
from bridge_tasks.tasks import claiming
from bridge_tasks.tasks.intelligence import warm_cache
from bridge_tasks.worker.metrics import Metrics
from bridge_tasks.worker.reconciler import Reconciler
from bridge_tasks.worker.relay import Relay
from bridge_tasks.worker.start_check import look_over
from bridge_tasks.worker.warming import warm_list

WARM_SECONDS = 300.0
"""After five minutes the work has warmed the cache by itself."""

_ENDURING = {"max_retries": 60, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}
"""A minute: as long as a restart of Redis may take."""

_log = logging.getLogger(__name__)

_reconcilers: list[Reconciler] = []
_relays: list[Relay] = []
_metrics: list[Metrics] = []

_GREEN_POOLS = frozenset({"gevent", "eventlet"})


@setup_logging.connect(dispatch_uid="bridge_tasks.logging", weak=False)
def _configure_logging(loglevel: int | str | None = None, **_: Any) -> None:
    """Take logging over from Celery; `--loglevel` wins over the settings (WARNING: Celery was given none)."""
    log = load().log
    given = loglevel if loglevel not in (None, logging.WARNING, "WARNING") else None
    logs.configure(given or log.level, json_lines=log.json_lines)


@celeryd_init.connect(dispatch_uid="bridge_tasks.results", weak=False)
def _keep_trying_to_store_results(conf: Any, **_: Any) -> None:
    """Outlast a restart of Redis, where a producer gives up at once.

    A worker that gave up would lose the result and, under threads and solo, count the job as running for ever.
    """
    options = conf.result_backend_transport_options
    conf.result_backend_transport_options = {**options, "retry_policy": _ENDURING}
    conf.result_backend_always_retry = True
    conf.result_backend_max_retries = _ENDURING["max_retries"]


@celeryd_init.connect(dispatch_uid="bridge_tasks.name", weak=False)
def _hold_messages_by_name(sender: str = "", conf: Any = None, **_: Any) -> None:
    """Give this worker a name, and keep apart what it holds: who finds it dead knows what to give back."""
    name = name_worker(sender)
    if load().redis_broker:
        conf.broker_transport_options = {
            **conf.broker_transport_options,
            "unacked_key": keys.UNACKED + name,
            "unacked_index_key": keys.UNACKED_INDEX + name,
            "unacked_mutex_key": keys.UNACKED_MUTEX + name,
        }
    conf.task_publish_retry_policy = _ENDURING


@celeryd_init.connect(dispatch_uid="bridge_tasks.sent", weak=False)
def _announce_arrivals_only(conf: Any, **_: Any) -> None:
    """Leave it to whoever receives a step to say that it is there: to say so of each sent one costs a tenth."""
    conf.task_send_sent_event = False


@celeryd_init.connect(dispatch_uid="bridge_tasks.count", weak=False)
@worker_process_init.connect(dispatch_uid="bridge_tasks.count_child", weak=False)
def _count(**_: Any) -> None:
    """Count before there are children, who inherit it; one that was spawned begins by itself."""
    settings = load().metrics
    if settings.port is not None and not _metrics:
        _metrics.append(Metrics(settings))
        _metrics[0].count()


@worker_ready.connect(dispatch_uid="bridge_tasks.metrics", weak=False)
def _serve_metrics(**_: Any) -> None:
    for metrics in _metrics:
        metrics.serve()


@worker_shutdown.connect(dispatch_uid="bridge_tasks.no_metrics", weak=False)
def _stop_metrics(**_: Any) -> None:
    while _metrics:
        _metrics.pop().stop()


@worker_init.connect(dispatch_uid="bridge_tasks.pool", weak=False)
def _refuse_green_pools(sender: Any, **_: Any) -> None:
    """Monkey-patched sockets and locks are not what the blocking bottom was built and tested on."""
    pool = getattr(sender.pool_cls, "__module__", "").rpartition(".")[2]
    if pool in _GREEN_POOLS:
        raise SystemExit(f"bridge_tasks does not run under -P {pool}: use prefork, threads or solo")


@worker_init.connect(dispatch_uid="bridge_tasks.check", weak=False)
def _look_over(sender: Any, **_: Any) -> None:
    look_over(load(), sender.app.conf)


@worker_ready.connect(dispatch_uid="bridge_tasks.reconcile", weak=False)
def _reconcile(**_: Any) -> None:
    settings, name = load(), this_worker()
    if settings.transport is None or _reconcilers:
        return
    _reconcilers.append(Reconciler(settings.ledger_place, settings.ledger, name, relayed=settings.rabbit_broker))
    _reconcilers[0].start()
    if settings.rabbit_broker:
        patience = settings.task.deadline + claiming.LEASE_MARGIN
        _relays.append(Relay(settings.ledger_place, settings.ledger, name, patience))
        _relays[0].start()


def give_back() -> None:
    """Give back what this worker held over a connection that it lost."""
    for reconciler in _reconcilers:
        reconciler.give_back()


@worker_shutdown.connect(dispatch_uid="bridge_tasks.leave", weak=False)
def _leave(**_: Any) -> None:
    while _relays:
        _relays.pop().stop()
    while _reconcilers:
        _reconcilers.pop().stop()


@worker_ready.connect(dispatch_uid="bridge_tasks.warm", weak=False)
def _warm_cache(**_: Any) -> None:
    """Leave the work to whichever worker has a slot; every worker asks for it, the first one does it."""
    onextree = load().onextree
    try:
        contexts = warm_list(onextree.warm) if onextree.cache else []
        if contexts:
            warm_cache.apply_async(kwargs={"contexts": contexts}, expires=WARM_SECONDS, ignore_result=True)
    except (BridgeError, OperationalError) as error:
        _log.warning("the cache is not warmed: %s", error)


@task_postrun.connect(dispatch_uid="bridge_tasks.flush", weak=False)
def _tell_what_waited(**_: Any) -> None:
    """A worker that now falls idle must not keep to itself what the others should know."""
    opened = runtime.opened()
    if opened is not None:
        opened.flush(overdue=True)


@worker_process_shutdown.connect(dispatch_uid="bridge_tasks.close_child", weak=False)
@worker_shutdown.connect(dispatch_uid="bridge_tasks.close", weak=False)
def _close_runtime(**_: Any) -> None:
    runtime.close()
    tracing.flush()
