"""Check content against its stamps, and services for their health. Adapters only."""

from typing import Any

from bridge_tasks import operations
from bridge_tasks.models.requests import CheckHealth, ValidateProtocol, ValidateStamp
from bridge_tasks.models.stamping import ServiceHealth, Validated
from bridge_tasks.runtime import current
from bridge_tasks.tasks.base import bridge_task


@bridge_task("bridge.validate_stamp")
def validate_stamp(request: ValidateStamp) -> Validated:
    """Check content against the stamps in it, or against the stamp the service holds for it."""
    runtime = current()
    return runtime.run(operations.validate_stamp(runtime.services, request))


@bridge_task("bridge.validate_protocol")
def validate_protocol(request: ValidateProtocol) -> dict[str, Any]:
    """Check content against a protocol."""
    runtime = current()
    return runtime.run(operations.validate_protocol(runtime.services, request))


@bridge_task("bridge.check_health")
def check_health(request: CheckHealth) -> dict[str, ServiceHealth]:
    """Ask both services how they are, as this worker sees them."""
    runtime = current()
    return runtime.run(operations.check_health(runtime.services, request))
