"""A worker's `/metrics`: what its processes counted, and what the ledger tells of the whole fleet.

Served from a thread of the worker's main process, on loopback unless told otherwise. No trouble in here may keep a
worker from its work. The files are private, and go with the worker.
"""

import logging
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis

from bridge_tasks import events, runtime
from bridge_tasks.ledger import keys
from bridge_tasks.ledger.workers import this_worker
from bridge_tasks.settings import MetricsSettings

_log = logging.getLogger(__name__)

DIRECTORY = "BRIDGE_METRICS_DIRECTORY"
"""Tells a process that is spawned, not forked, where to count."""


class Metrics:
    """The counting and the serving of one worker.

    Args:
        settings: where to serve.
    """

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings = settings
        self._closing = ExitStack()
        self.address = ""

    def count(self) -> None:
        """Begin to count, in this process and in those that it starts; they are told the directory."""
        if DIRECTORY not in os.environ:
            os.environ[DIRECTORY] = self._closing.enter_context(
                TemporaryDirectory(prefix="bridge-metrics-", ignore_cleanup_errors=True)
            )
            self._closing.callback(os.environ.pop, DIRECTORY, None)
        from bridge_tasks.observability.counters import Counters  # noqa: PLC0415 - only where figures are wanted

        counters = Counters(os.environ[DIRECTORY])
        self._closing.callback(counters.close)
        self._closing.callback(events.subscribe(counters.listen))

    def serve(self) -> None:
        """Listen, and tell the fleet where."""
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - the same

        from bridge_tasks.exposition import FleetFigures  # noqa: PLC0415 - the same
        from bridge_tasks.observability.files import ProcessFigures  # noqa: PLC0415 - the same

        registry = CollectorRegistry()
        registry.register(ProcessFigures(Path(os.environ[DIRECTORY])))
        registry.register(FleetFigures(runtime.current))
        host = self._settings.host
        try:
            server, thread = start_http_server(self._settings.port or 0, host, registry)
        except OSError as error:
            _log.error("no metrics: %s:%s: %s", host, self._settings.port, error.strerror)
            return
        pid = os.getpid()
        os.register_at_fork(after_in_child=server.socket.close)  # it is the parent's door
        self.address = f"{host}:{server.server_port}"

        def stop() -> None:
            if os.getpid() == pid:
                server.shutdown()
                server.server_close()
                thread.join()
                self._tell("HDEL", this_worker())

        self._closing.callback(stop)
        self._tell("HSET", this_worker(), self.address)
        _log.info("metrics at http://%s/metrics", self.address)

    def stop(self) -> None:
        """End, and leave nothing."""
        self._closing.close()

    @staticmethod
    def _tell(command: str, *arguments: Any) -> None:
        with suppress(redis.RedisError):
            runtime.current().ledger_redis.execute_command(command, keys.METRICS, *arguments)  # type: ignore[no-untyped-call] # redis-py's own gap
