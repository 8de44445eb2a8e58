"""What the metadata service says about itself: health, liveness, readiness, metrics. Always HTTP 200."""

from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from bridge_tasks.sandbox.backend import PREFIX, SERVICE, VERSION, Backend, Stopwatch
from bridge_tasks.sandbox.envelope import Json, success
from bridge_tasks.sandbox.stamping import hash_text

_SLOW_PROBE_MILLISECONDS = 5.0


class ServiceVitals:
    """The endpoints about the service itself, in the dialect `service`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def router(self) -> APIRouter:
        """Return the routes, those under the prefix and those beside it."""
        router = APIRouter()
        for path, endpoint in (
            (f"{PREFIX}/metrics", self.metrics),
            (f"{PREFIX}/health", self.health),
            (f"{PREFIX}/health/live", self.live),
            (f"{PREFIX}/health/ready", self.ready),
            ("/", self.root),
            ("/health", self.root_health),
            ("/metrics", self.to_prometheus),
            ("/metrics/", self.prometheus),
        ):
            router.add_api_route(path, endpoint, methods=["GET"])
        return router

    async def metrics(self, namespace: str | None = None) -> Response:
        return success(measured(self._backend), {"namespace": namespace, "operation": "get_metrics"})

    async def health(self) -> Response:
        probe = Stopwatch()
        hash_text("probe")
        hashing = probe.milliseconds()
        probe = Stopwatch()
        self._backend.store.count()
        degraded = hashing >= _SLOW_PROBE_MILLISECONDS
        data = {
            "status": "degraded" if degraded else "healthy",
            "components": {
                "stamping_engine": _component("degraded" if degraded else "healthy", hashing),
                "database": _component("healthy", probe.milliseconds()),
                "file_handler": _component("healthy", 0.0),
                "event_publisher": _component("disabled", 0.0),
            },
            "uptime_seconds": self._backend.uptime_seconds(),
            "version": VERSION,
        }
        return success(data)

    async def live(self) -> Response:
        now = datetime.now(UTC).isoformat()
        return success({"status": "alive", "uptime_seconds": self._backend.uptime_seconds(), "timestamp": now})

    async def ready(self) -> Response:
        components = {
            "stamping_engine": {"ready": True},
            "database": {"ready": True},
            "event_publisher": {"ready": True, "status": "disabled"},
        }
        return success({"status": "ready", "components": components, "overall_ready": True})

    async def root(self) -> Response:
        return JSONResponse({"service": SERVICE, "version": VERSION, "status": "running"})

    async def root_health(self) -> Response:
        return JSONResponse({"status": "ok", "service": SERVICE})

    async def to_prometheus(self) -> Response:
        return RedirectResponse("/metrics/", 307)

    async def prometheus(self) -> Response:
        return PlainTextResponse(
            "# TYPE metadata_stamping_hashes_total counter\n"
            f"metadata_stamping_hashes_total {self._backend.timings.total}\n"
            "# TYPE metadata_stamping_stamps gauge\n"
            f"metadata_stamping_stamps {self._backend.store.count()}\n"
        )


def measured(backend: Backend) -> Json:
    """Return what `/metrics` tells in either dialect."""
    return {
        "hash_generation": backend.timings.summary(),
        "database": [{"table": "stamps", "rows": backend.store.count()}],
        "service_uptime": backend.uptime_seconds(),
    }


def _component(status: str, milliseconds: float) -> Json:
    return {"status": status, "response_time_ms": milliseconds, "details": {}}
