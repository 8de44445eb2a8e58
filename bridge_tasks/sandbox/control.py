"""The routes by which a test or a person drives a sandbox: order faults, read what was asked.

They are neither recorded nor met by faults. `Controls` is the same from within the process.
"""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.background import BackgroundTask

from bridge_tasks.sandbox.fault_effects import FaultInjection
from bridge_tasks.sandbox.faults import Fault, Faults, Refuse
from bridge_tasks.sandbox.records import CONTROL_PREFIX, Recording, Records
from bridge_tasks.sandbox.wire import WIRE, Wire


@dataclass(frozen=True, slots=True)
class Controls:
    """The faults in force for one application, and the requests made to it."""

    faults: Faults = field(default_factory=Faults)
    records: Records = field(default_factory=Records)


def instrument(app: FastAPI) -> None:
    """Put recording and fault injection around `app`, and the control routes into it."""
    controls = Controls()
    app.state.controls = controls
    app.add_middleware(FaultInjection, faults=controls.faults)
    app.add_middleware(Recording, records=controls.records)
    app.include_router(_router(controls), prefix=CONTROL_PREFIX, include_in_schema=False)


def controls_of(app: FastAPI) -> Controls:
    """Return the controls of an application that `create_app` made."""
    controls: Controls = app.state.controls
    return controls


def _router(controls: Controls) -> APIRouter:
    router = APIRouter()

    @router.post("/faults")
    async def order(request: Request, faults: Annotated[list[Fault], Body()]) -> Response:
        wire: Wire | None = request.scope.get(WIRE)
        refusals = [fault.seconds for fault in faults if isinstance(fault, Refuse)]
        if refusals and wire is None:
            raise HTTPException(501, "refuse needs a socket: serve the application")
        controls.faults.add(*(fault for fault in faults if not isinstance(fault, Refuse)))
        # In the background, so that this answer leaves before the listener closes.
        refuse = BackgroundTask(wire.refuse, max(refusals)) if refusals and wire else None
        return JSONResponse(_in_force(controls), background=refuse)

    @router.get("/faults")
    async def show() -> Response:
        return JSONResponse(_in_force(controls))

    @router.delete("/faults")
    async def lift() -> Response:
        controls.faults.clear()
        return JSONResponse([])

    @router.get("/requests")
    async def requests(correlation_id: str | None = None, path: str = "") -> Response:
        return JSONResponse([asdict(record) for record in controls.records.select(correlation_id, path)])

    @router.delete("/requests")
    async def forget() -> Response:
        controls.records.clear()
        return JSONResponse([])

    @router.get("/counts")
    async def counts() -> Response:
        return JSONResponse(controls.records.counts())

    return router


def _in_force(controls: Controls) -> list[dict[str, Any]]:
    return [fault.model_dump(mode="json") for fault in controls.faults.in_force]
