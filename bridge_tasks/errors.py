"""Every error a caller can meet, and what to do about it.

    BridgeError                          retryable: no, unless a row says so
    ├── InvalidRequest                   the caller's input; carries `field` and `reason`
    │   └── MessageRefused                what lay in a queue is no message that a worker reads
    ├── ContentUnavailable               the bytes a job refers to are gone, unreadable or not allowed
    ├── ConfigurationError               this deployment is set up wrongly
    ├── JobFailed                        a job ended in an error that is not one of these; `cause` names it
    │   └── JobExpired                   it could not be done before it was too old
    ├── JobCancelled                     somebody cancelled the job
    ├── JobUnknown                       there is no record of the job, or no longer
    └── ClientError                      a service call failed
        └── ServiceUnavailableError      retryable: down, unreachable, too slow, or asking for patience
            ├── CircuitBreakerError      retryable: the circuit is open; nothing was sent
            ├── ServiceBusy              retryable: it asked to be left alone for a while; nothing was sent
            └── RateLimited              retryable: our own limit for it is used up; nothing was sent

Each error survives pickle and Celery's JSON (which rebuilds an exception from `args`): every field is a
positional argument handed to `Exception.__init__`. No message may hold content, a credential or an
internal detail of a service.
"""

from typing import Any, ClassVar


class BridgeError(Exception):
    """The root: catch it to catch everything this package raises on purpose."""

    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later without anybody changing anything."""

    unsent: bool = False
    """Whether we kept the whole call back ourselves."""

    outage: bool = False
    """Whether the service's circuit was not closed when the call failed: no caller is to blame for that."""

    retry_after: float | None = None
    """Seconds to wait before trying again, where the other side said so."""

    def __init__(self, message: str, *fields: Any) -> None:
        super().__init__(message, *fields)
        self.message = message

    @property
    def blameless(self) -> bool:
        """Whether a job that meets this loses no attempt."""
        return self.unsent or self.outage

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"


class InvalidRequest(BridgeError, ValueError):  # noqa: N818 - the name design.md gives it; others catch it
    """The input is refused: `field` names the part (dotted path), `reason` says why. Never retried."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason
        self.message = f"{field}: {reason}"


class MessageRefused(InvalidRequest):
    """A message was not run: it is malformed, or not signed by anybody who may ask for work."""


class ContentUnavailable(BridgeError):  # noqa: N818 - a state of the content, told like InvalidRequest
    """The bytes that a job refers to cannot be had: missing, unreadable, changed while read, expired."""


class ConfigurationError(BridgeError):
    """This process is set up in a way that cannot work; the message names the setting."""


class JobFailed(BridgeError):  # noqa: N818 - a state, told like ServiceUnavailable
    """A job ended in an error that is not one of ours: `cause` is its type's name. Its text may not be shown."""

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(message, cause)
        self.cause = cause


class JobExpired(JobFailed):
    """A job could not be done before it reached the greatest age (BRIDGE_LEDGER__MAX_AGE)."""


class JobCancelled(BridgeError):  # noqa: N818 - the same
    """A job was cancelled before it ended."""


class JobUnknown(BridgeError):  # noqa: N818 - the same
    """There is no record of a job: it never was, its time is over, or Redis lost it."""


class ClientError(BridgeError):
    """A service refused a call or answered something that makes no sense.

    Attributes:
        status: the HTTP status, where there was one.
        code: the service's own error code (`STAMP_NOT_FOUND`, ...), where it gave one.
        retry_after: seconds, where the service named them.
        data: the payload that came with the refusal (a batch that failed as a whole has one per item).
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, status, code, retry_after, data)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.data = data


class ServiceUnavailableError(ClientError):
    """The service is down, unreachable, too slow, or asks for patience (429, 502, 503, 504)."""

    retryable = True


class CircuitBreakerError(ServiceUnavailableError):
    """The circuit is open, or half-open and full: nothing was sent. `retry_after` is the time left."""

    unsent = True


class ServiceBusy(ServiceUnavailableError):  # noqa: N818 - a state, told like ServiceUnavailable
    """The service asked for patience (`Retry-After`): nothing was sent. `retry_after` is the time left."""

    unsent = True


class RateLimited(ServiceUnavailableError):  # noqa: N818 - a state, told like ServiceUnavailable
    """Our own limit for the service is used up: nothing was sent. `retry_after` is when it may be worth a try."""

    unsent = True
