"""What both service clients share: one request, its errors translated, its envelope opened, its counts kept.

Every call goes through `self._http_client.request(...)`; resilience is below that, in the transports. Errors of
httpx end here: callers see `bridge_tasks.errors` only, with nothing of a response's body but a short complaint.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Self
from uuid import UUID

import httpx

from bridge_tasks import correlation
from bridge_tasks.clients.envelope import SUCCESS, Complaint, complaint, is_envelope
from bridge_tasks.errors import BridgeError, ClientError, ServiceUnavailableError
from bridge_tasks.resilience.policy.balancing import BalancingConfig
from bridge_tasks.resilience.policy.breaker import CircuitBreakerConfig, CircuitState
from bridge_tasks.resilience.policy.budget import BudgetConfig
from bridge_tasks.resilience.policy.hedging import HedgingConfig
from bridge_tasks.resilience.policy.limits import LimitsConfig
from bridge_tasks.resilience.policy.retry import RETRYABLE_STATUSES, RetryConfig, retry_after
from bridge_tasks.resilience.state.redis_circuit import Listener
from bridge_tasks.resilience.state.shared_redis import SharedRedis
from bridge_tasks.resilience.transport import service_breaker, service_limits, service_transport
from bridge_tasks.resilience.transport.bottom import Bottom, LocalFault, app_bottom, asyncio_bottom
from bridge_tasks.resilience.transport.call import EXTENSION, Call
from bridge_tasks.resilience.transport.client import LeanAsyncClient

__all__ = ["BaseServiceClient", "ClientError", "ServiceUnavailableError"]

AsgiApp = Callable[..., Awaitable[None]]

# What httpx, a socket or a malformed address may raise. Anything else (a soft time limit, say) passes through.
_FOREIGN = (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError, ExceptionGroup)

SLOWEST_BYTES_PER_SECOND = 8 * 1024 * 1024
"""A service that takes a large body more slowly than this counts as hung: 500 MiB get a minute on top."""

DUMMY_HOST = "http://in-process"
"""Stands in the URL when an `app` is called in this process and no base URL was given."""


class BaseServiceClient(ABC):
    """A client of one service.

    Args:
        base_url: scheme, host, port and path under which the endpoints are.
        service_name: for messages, metrics and the User-Agent.
        timeout: seconds for one try.
        max_retries: tries in total, the first included.
        circuit_breaker_config: the breaker's numbers (its `timeout` does not bound calls made here).
        app: an ASGI application to call in this process instead of the network.
        retry: pauses between tries; its `attempts` wins over `max_retries`.
        deadline: seconds for a call over all tries and pauses; by default long enough for all of them.
        replicas: further base URLs of the same service (same path).
        balancing: how tries are spread over replicas, and over the addresses of a name.
        hedging: whether slow reads are sent twice.
        limits: how many calls a minute, and at a time; none by default.
        budget: how many retries the service can bear.
        shared: the Redis by which all processes share circuit and limits; by default each has its own.
        circuit_news: brings what other processes do to the circuit as it happens, not within a second.
        bottom: how I/O is done; asyncio by default. Tasks use the blocking one.
    """

    HEALTHY: ClassVar[tuple[str, ...]] = ("healthy", "ok")
    """The words of a service that can work."""

    def __init__(
        self,
        base_url: str | None,
        service_name: str,
        timeout: float = 30.0,
        max_retries: int = 3,
        circuit_breaker_config: CircuitBreakerConfig | None = None,
        app: AsgiApp | None = None,
        *,
        retry: RetryConfig | None = None,
        deadline: float | None = None,
        replicas: Sequence[str] = (),
        balancing: BalancingConfig | None = None,
        hedging: HedgingConfig | None = None,
        limits: LimitsConfig | None = None,
        budget: BudgetConfig | None = None,
        shared: SharedRedis | None = None,
        circuit_news: Listener | None = None,
        bottom: Bottom | None = None,
    ) -> None:
        self.base_url = (base_url or (DUMMY_HOST if app else "")).rstrip("/")
        self.service_name = service_name
        self.timeout = timeout
        self.max_retries = retry.attempts if retry else max_retries
        self.retry = retry or RetryConfig(attempts=max(1, max_retries))
        self.deadline = deadline or self.retry.attempts * timeout + self.retry.longest
        self._replicas = tuple(replicas)
        self._balancing = balancing
        self._hedging = hedging
        self._bottom = bottom or (app_bottom(app) if app else asyncio_bottom())
        self.circuit_breaker = service_breaker(
            f"{service_name}_circuit_breaker",
            circuit_breaker_config or CircuitBreakerConfig(timeout=timeout),
            self._bottom,
            shared,
            circuit_news,
        )
        self._limits = service_limits(
            service_name, limits or LimitsConfig(), budget or BudgetConfig(), self._bottom, shared
        )
        self._opening = threading.Lock()
        self._http_client: httpx.AsyncClient | None = None
        self._request_count = 0
        self._error_count = 0

    async def initialize(self) -> None:
        """Open the connection pool. Idempotent; the first call does it by itself."""
        with self._opening:  # several threads may come first at once: one pool, and one view of the replicas
            if self._http_client is None:
                self._http_client = self._opened()

    def _opened(self) -> httpx.AsyncClient:
        transport = service_transport(
            self._bottom,
            replicas=[httpx.URL(url) for url in (self.base_url, *self._replicas)],
            deadline=self.deadline,
            retry=self.retry,
            breaker=self.circuit_breaker,
            balancing=self._balancing,
            hedging=self._hedging,
            limits=self._limits,
        )
        return LeanAsyncClient(transport, timeout=self.timeout, user_agent=f"omninode-bridge/{self.service_name}")

    async def close(self) -> None:
        """Close the pool. Idempotent; the client may be used again afterwards."""
        client, self._http_client = self._http_client, None
        if client is not None:
            await client.aclose()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    async def _validate_connection(self) -> bool:
        """Say whether the service answers and can work."""

    async def health_check(self) -> dict[str, Any]:
        """Return the body of the service's /health as it is.

        Raises:
            ServiceUnavailableError: it cannot be had, for whatever reason.
        """
        try:
            return self._json(await self._request("health_check", "GET", "/health"), "Health check failed")
        except ServiceUnavailableError:
            raise
        except ClientError as error:
            raise ServiceUnavailableError(f"Health check failed: {error}", error.status) from error

    def get_metrics(self) -> dict[str, Any]:
        """Return this client's counts since it was made: every request counts, `error_rate` is 0..1."""
        return {
            "service_name": self.service_name,
            "base_url": self.base_url,
            "request_count": self._request_count,
            "error_count": self._error_count,
            "error_rate": self._error_count / self._request_count if self._request_count else 0.0,
            "circuit_breaker": self.circuit_breaker.get_metrics().to_dict(),
        }

    async def _ask(
        self,
        operation: str,
        method: str,
        endpoint: str,
        *,
        failure: str,
        accept: Collection[str] = SUCCESS,
        **request: Any,
    ) -> dict[str, Any]:
        """Make a call and return its whole body, once its envelope says that it went well.

        Raises:
            ClientError: the service refused, or its envelope says so; the message begins with `failure`.
            ServiceUnavailableError: it is down, unreachable or too slow.
        """
        body = self._json(await self._request(operation, method, endpoint, **request), failure)
        if body.get("status") not in accept:
            data = body.get("data")
            said = complaint(body)
            raise self._failed(
                f"{failure}: {str(said) or 'the service gave no reason'}",
                code=said.code,
                data=data if isinstance(data, dict) else None,
            )
        return body

    async def _request(
        self,
        operation: str,
        method: str,
        endpoint: str,
        *,
        correlation_id: UUID | str | None = None,
        idempotent: bool = True,
        read: bool = False,
        expected: frozenset[int] = frozenset(),
        tolerated: Collection[int] = (),
        body_bytes: int = 0,
        headers: Mapping[str, str] | None = None,
        **payload: Any,
    ) -> httpx.Response:
        """Send one request.

        Args:
            operation: the verb, for events and messages.
            method: HTTP method.
            endpoint: path below the base URL.
            correlation_id: the caller's; by default the one bound to this context.
            idempotent: whether it may be sent again when nobody knows if it arrived.
            read: whether it changes nothing, as a GET does: such a call may be hedged.
            expected: statuses that say nothing bad of the service's health here.
            tolerated: error statuses that are returned, not raised.
            body_bytes: size of what is sent, where it may be large: the call gets more time for it.
            headers: the caller's; our own two win.
            payload: `params`, `json` or `files`, handed on.
        """
        if self._http_client is None:
            await self.initialize()
        assert self._http_client is not None  # noqa: S101 - initialize() opened it; for the type checker
        sent = self._headers(correlation_id, headers)
        self._request_count += 1
        try:
            response = await self._http_client.request(
                method=method,
                url=f"{self.base_url}{endpoint}",
                headers=sent,
                extensions={
                    EXTENSION: Call(
                        self.service_name,
                        operation,
                        idempotent,
                        expected,
                        body_bytes / SLOWEST_BYTES_PER_SECOND,
                        read or method == "GET",
                    )
                },
                **payload,
            )
            if response.status_code not in tolerated:
                response.raise_for_status()
        except BridgeError as error:  # the circuit is open, or the request holds what JSON cannot carry
            self._error_count += 1
            self._excuse(error)
            raise
        except _FOREIGN as error:
            self._error_count += 1
            told = self._translated(operation, error)
            self._excuse(told)
            raise told from error
        return response

    def _headers(self, correlation_id: UUID | str | None, given: Mapping[str, str] | None) -> dict[str, str]:
        headers = {**(given or {}), "User-Agent": f"omninode-bridge/{self.service_name}"}
        bound = correlation.parse(correlation_id) if correlation_id is not None else correlation.current()
        if bound is not None:
            headers[correlation.HTTP_HEADER] = bound
        return headers

    def _excuse(self, error: BridgeError) -> None:
        """Mark an error that may pass as the outage's: a probe that fails is no fault of its caller's."""
        if error.retryable and self.circuit_breaker.state is not CircuitState.CLOSED:
            error.outage = True

    def _translated(self, operation: str, error: Exception) -> ClientError:
        """Turn what went wrong into our own error: the boundary where httpx ends."""
        who = f"{self.service_name} {operation}"
        match error:
            case httpx.HTTPStatusError():
                return self._refusal(who, error.response)
            case httpx.TimeoutException() | TimeoutError():
                return ServiceUnavailableError(f"{who}: no answer in time")
            case httpx.NetworkError() | httpx.RemoteProtocolError():
                return ServiceUnavailableError(f"{who}: unreachable ({type(error).__name__})")
            case httpx.DecodingError() | LocalFault():
                return ClientError(f"{who}: {error}")
        return ClientError(f"{who}: the request could not be made ({type(error).__name__})")

    def _refusal(self, who: str, response: httpx.Response) -> ClientError:
        status = response.status_code
        try:
            said = complaint(response.json())
        except (ValueError, RecursionError):
            said = Complaint()
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            said = Complaint(said.code)  # the words of a 5xx may hold internals
        message = f"{who}: HTTP {status}" + (f" {said}" if str(said) else "")
        hint = retry_after(response.headers.get("retry-after"), datetime.now(UTC))
        kind = ServiceUnavailableError if status in RETRYABLE_STATUSES else ClientError
        return kind(message, status, said.code, hint)

    def _json(self, response: httpx.Response, failure: str) -> dict[str, Any]:
        """Return the body, which must be a JSON object."""
        try:
            body = response.json()
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise self._failed(f"{failure}: {self.service_name} answered something other than a JSON object")
        return body

    def _failed(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> ClientError:
        """Count an answer that came and is an error all the same, and put it in words."""
        self._error_count += 1
        return ClientError(message, status, code, None, data)


def data_of(body: dict[str, Any]) -> dict[str, Any]:
    """Return the payload of an answer: `data` of an envelope, else the body itself."""
    if not is_envelope(body):
        return body
    data = body.get("data")
    return data if isinstance(data, dict) else {}
