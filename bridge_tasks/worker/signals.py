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
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)
from kombu.exceptions import OperationalError

from bridge_tasks import runtime
from bridge_tasks.errors import BridgeError
from bridge_tasks.observability import logs
from bridge_tasks.settings import load
from bridge_tasks.tasks.intelligence import warm_cache
from bridge_tasks.worker.warming import warm_list

WARM_SECONDS = 300.0
"""After five minutes the work has warmed the cache by itself."""

_log = logging.getLogger(__name__)

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
    policy = {"max_retries": 60, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}
    conf.result_backend_transport_options = {**options, "retry_policy": policy}
    conf.result_backend_always_retry = True
    conf.result_backend_max_retries = policy["max_retries"]


@worker_init.connect(dispatch_uid="bridge_tasks.pool", weak=False)
def _refuse_green_pools(sender: Any, **_: Any) -> None:
    """Monkey-patched sockets and locks are not what the blocking bottom was built and tested on."""
    pool = getattr(sender.pool_cls, "__module__", "").rpartition(".")[2]
    if pool in _GREEN_POOLS:
        raise SystemExit(f"bridge_tasks does not run under -P {pool}: use prefork, threads or solo")


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
