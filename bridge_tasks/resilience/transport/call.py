"""What a call is, besides its HTTP request: it rides in `request.extensions` and is read by the wrappers."""

from dataclasses import dataclass

import httpx

from bridge_tasks.resilience.policy.breaker import Outcome

EXTENSION = "bridge_call"

SUCCESS, FAILURE, NEUTRAL = Outcome.SUCCESS, Outcome.FAILURE, Outcome.NEUTRAL
_BAD_REQUEST, _SERVER_ERROR = 400, 500
_NO_VERDICT = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)
# To look a member of an enumeration up takes longer than the decision that it is part of.


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one operation.

    Attributes:
        service: who is called.
        operation: the verb, for events.
        idempotent: whether sending it twice does no more than sending it once.
        expected: statuses that are an answer here and say nothing bad of the service's health.
        allowance: seconds on top of the try's and the call's time, for moving a large body.
        read: whether it leaves no trace, so that a second one may be sent beside it.
    """

    service: str = "unknown"
    operation: str = "unknown"
    idempotent: bool = True
    expected: frozenset[int] = frozenset()
    allowance: float = 0.0
    read: bool = False


UNKNOWN = Call()


def call_of(request: httpx.Request) -> Call:
    """Return the call that `request` belongs to."""
    call = request.extensions.get(EXTENSION, UNKNOWN)
    return call if isinstance(call, Call) else UNKNOWN


def verdict(call: Call, response: httpx.Response) -> Outcome:
    """Say what a response tells of the service's health.

    A 5xx is a failure. A 408 or 429 says nothing; any other 4xx is the caller's fault and the service's
    success (wire-contract.md 5, rows 24 and 41).
    """
    status = response.status_code
    if status < _BAD_REQUEST or status in call.expected:  # nearly every call ends here
        return SUCCESS
    if status in _NO_VERDICT:
        return NEUTRAL
    return FAILURE if status >= _SERVER_ERROR else SUCCESS


SERVICE_FAULTS = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
"""Transport errors that tell of the service; any other is ours, or nobody's."""


def fault(error: BaseException) -> Outcome:
    """Say what a transport error tells of the service's health. An exhausted pool is our own fault."""
    if isinstance(error, SERVICE_FAULTS) and not isinstance(error, httpx.PoolTimeout):
        return FAILURE
    return NEUTRAL


def unsent(error: BaseException) -> bool:
    """Say whether the error came before a byte of the request was sent."""
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
