"""One chunk of a bulk run. An adapter only: the work is in `bridge_tasks.bulk`."""

from functools import partial

import redis
from celery import current_task
from kombu.exceptions import OperationalError

from bridge_tasks import bulk, correlation
from bridge_tasks.errors import ServiceUnavailableError
from bridge_tasks.ledger.packing import RunFile
from bridge_tasks.ledger.run_records import RunOptions
from bridge_tasks.ledger.runs import alone_job
from bridge_tasks.messages import HEADER, ITEM
from bridge_tasks.models.requests import StampChunk
from bridge_tasks.models.stamping import ChunkStamped
from bridge_tasks.runtime import current
from bridge_tasks.tasks.base import bridge_task
from bridge_tasks.tasks.stamping import stamp_file


@bridge_task("bridge.stamp_chunk")
def stamp_chunk(request: StampChunk) -> ChunkStamped:
    """Stamp one chunk of a run's files with one call of the service."""
    runtime = current()
    hands = bulk.Hands(partial(_alone, request), partial(_handed_over, request))
    try:
        done = runtime.run(bulk.stamp_chunk(runtime.services, runtime.runs, request, hands))
    except (redis.RedisError, OperationalError) as error:  # no fault of a file: the chunk is tried again
        raise ServiceUnavailableError("the run's record is out of reach") from error
    current_task.send_event("task-progress", run=request.run, chunk=request.number, **done.model_dump())
    return done


def _handed_over(request: StampChunk, count: int) -> list[int]:
    """Return which of a chunk's files have jobs of their own."""
    runtime = current()
    names = {alone_job(request.run, request.number, index): index for index in range(count)}
    return [names[name] for name in runtime.run(runtime.ledger.watch(list(names), ""))]


def _alone(request: StampChunk, file: RunFile, index: int, options: RunOptions) -> None:
    """Send a file as a job of its own; its id is the same each time, so it is one job."""
    fields = {
        "content": file.content,
        "file_path": file.label,
        "context": file.context,
        "namespace": options.namespace,
        "stamp_data": options.stamp_data,
        "content_type": options.content_type,
    }
    headers = {HEADER: correlation.ensure(), ITEM: f"{request.run}|{request.number}|{index}"}
    stamp_file.apply_async(
        kwargs={name: value for name, value in fields.items() if value is not None},
        task_id=alone_job(request.run, request.number, index),
        headers=headers,
        ignore_result=True,
    )
