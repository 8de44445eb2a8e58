"""Stamp files, one or many, and look stamps up. Adapters only: the work is in `bridge_tasks.operations`."""

from typing import Any

from bridge_tasks import operations
from bridge_tasks.models.requests import BatchCreateStamps, CreateStamp, GetStamp, StampFile
from bridge_tasks.models.stamping import BatchStamped, Stamped
from bridge_tasks.runtime import current
from bridge_tasks.tasks.base import bridge_task


@bridge_task("bridge.create_stamp")
def create_stamp(request: CreateStamp) -> Stamped:
    """Stamp a file whose hash is known; in a chain, with the hash and intelligence of the steps before."""
    runtime = current()
    return runtime.run(operations.create_stamp(runtime.services, request))


@bridge_task("bridge.stamp_file")
def stamp_file(request: StampFile) -> Stamped:
    """Do the whole job in one message: hash, intelligence, stamp."""
    runtime = current()
    return runtime.run(operations.stamp_file(runtime.services, request))


@bridge_task("bridge.get_stamp")
def get_stamp(request: GetStamp) -> dict[str, Any] | None:
    """Look a stamp up by hash; null where there is none."""
    runtime = current()
    return runtime.run(operations.get_stamp(runtime.services, request))


@bridge_task("bridge.batch_create_stamps")
def batch_create_stamps(request: BatchCreateStamps) -> BatchStamped:
    """Stamp up to 1000 files with one call of the service."""
    runtime = current()
    return runtime.run(operations.batch_create_stamps(runtime.services, request))
