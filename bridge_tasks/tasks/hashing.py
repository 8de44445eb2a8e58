"""Hash content. Adapters only: the work is in `bridge_tasks.operations`."""

from bridge_tasks import operations
from bridge_tasks.models.requests import GenerateHash
from bridge_tasks.models.stamping import Hashed
from bridge_tasks.runtime import current
from bridge_tasks.tasks.base import bridge_task


@bridge_task("bridge.generate_hash")
def generate_hash(request: GenerateHash) -> Hashed:
    """Hash content with BLAKE3; a file is streamed, whatever its size."""
    runtime = current()
    return runtime.run(operations.generate_hash(runtime.services, request))
