"""What to do about a job, in one line: the same words in `status`, `dead show` and wherever a job is told of."""

import httpx

from bridge_tasks.errors import (
    BridgeError,
    ClientError,
    ContentUnavailable,
    InvalidRequest,
    JobCancelled,
    JobExpired,
    ServiceUnavailableError,
)
from bridge_tasks.ledger import DeadLetter
from bridge_tasks.resilience.policy.breaker import CircuitState
from bridge_tasks.vitals import SystemHealth
from bridge_tasks.worker.pausing import QUEUES


def about_failure(error: BridgeError, letter: DeadLetter | None) -> str:
    """Say what helps after a failure.

    Args:
        error: why it failed.
        letter: what could be replayed, if there is one.
    """
    if isinstance(error, JobCancelled):
        return "submit it again if it is wanted after all"
    if letter is None or not letter.replayable:
        joined = letter is not None and letter.joined
        why = "a chord's member cannot be replayed alone" if joined else "there is no message left to replay"
        return f"{why}: submit the job again"
    replay = f"bridge-tasks dead replay {letter.record.id}"
    if isinstance(error, JobExpired):
        return f"see that workers keep up (bridge-tasks health), then: {replay}"
    if isinstance(error, ServiceUnavailableError):
        return f"once the service is well (bridge-tasks health): {replay}"
    refused = isinstance(error, ClientError) and httpx.codes.is_client_error(error.status or 0)
    if refused or isinstance(error, InvalidRequest | ContentUnavailable):
        return f"put right what it says, and submit it again (or, if nothing in the job changes: {replay})"
    return f"see the workers' log for its correlation id, then: {replay}"


def about_unsealed(run: str) -> str:
    """Say what helps a run that was not submitted to its end; whether its submitter still lives, nobody knows."""
    rest = resume_command(run)
    return f"If its submitter is gone, this sends the rest (the same PATHs and options as before): {rest}"


def resume_command(run: str) -> str:
    """What sends the rest of a run, as far as its id tells."""
    return f"bridge-tasks stamp --resume {run} PATH…"


def about_waiting(queue: str | None, health: SystemHealth) -> str:
    """Say what a job waits for."""
    if health.workers == ():
        return "start a worker: none lives (bridge-tasks worker)"
    for service, queues in QUEUES.items():
        if queue in queues and health.circuits.get(service) is CircuitState.OPEN:
            return f"nothing: its turn comes once {service} is well again (bridge-tasks breaker list)"
    return "nothing: its turn comes"
