"""Tries again what may succeed later: when is `policy.retry`'s to say, tenacity runs the tries.

It never repeats a call with side effects that may have reached the service, never waits past the deadline, and
never retries beyond what the budget bears.
tenacity is entered only once something failed: a call that succeeds at once pays nothing for it.
"""

from datetime import UTC, datetime

import httpx
from tenacity import AsyncRetrying, Future, RetryCallState

from bridge_tasks import events
from bridge_tasks.errors import BridgeError
from bridge_tasks.resilience.limits import ServiceLimits
from bridge_tasks.resilience.policy import retry as policy
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.call import SERVICE_FAULTS, Call, call_of, unsent
from bridge_tasks.resilience.transport.deadline import remaining


class RetryingTransport(httpx.AsyncBaseTransport):
    """Retries on connection errors, timeouts, broken protocol, 429, 502, 503 and 504."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        config: RetryConfig,
        bottom: Bottom,
        limits: ServiceLimits | None = None,
    ) -> None:
        self._inner = inner
        self._config = config
        self._bottom = bottom
        self._limits = limits or ServiceLimits.alone(bottom.clock, bottom.chance)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the first good response, or the last outcome when the tries or the time are used up."""
        try:
            response = await self._inner.handle_async_request(request)
        except SERVICE_FAULTS as error:
            first = Future(1)
            first.set_exception(error)
        else:
            if response.status_code not in policy.RETRYABLE_STATUSES:
                self._limits.succeeded()
                return response
            first = Future(1)
            first.set_result(response)
        return await self._try_again(request, first)

    async def _try_again(self, request: httpx.Request, first: Future) -> httpx.Response:
        call = call_of(request)
        plan: list[float | None] = []  # the pause after each try; None: that was the last
        spent = 0  # tokens, for the retry under way

        async def attempt() -> httpx.Response:
            if not plan:
                return first.result()  # type: ignore[no-any-return] # tenacity's Future is untyped
            try:
                response = await self._inner.handle_async_request(request)
            except BridgeError as error:
                error.unsent = False  # this try was kept back, but one before it was not
                raise
            if response.status_code not in policy.RETRYABLE_STATUSES:
                self._limits.succeeded(spent)
            return response

        async def wait(state: RetryCallState) -> float:
            nonlocal spent
            pause = self._pause(state)
            spent = 0 if pause is None else await self._pay(call, state)
            plan.append(pause if spent else None)
            return plan[-1] or 0.0

        def tell(state: RetryCallState) -> None:
            events.emit(
                events.RetryScheduled(
                    call.service, call.operation, state.attempt_number, plan[-1] or 0.0, _cause(state.outcome)
                )
            )

        retrying = AsyncRetrying(
            retry=lambda state: _may_pass(call, state.outcome),
            # tenacity asks for the pause first, then whether to stop.
            wait=wait,  # type: ignore[arg-type] # it awaits what is awaitable; its types forget that
            stop=lambda _: plan[-1] is None,
            before_sleep=tell,
            sleep=self._bottom.sleep,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        return await retrying(attempt)

    async def _pay(self, call: Call, state: RetryCallState) -> int:
        """Return the tokens that the next try has cost; 0: the budget does not bear it."""
        price = await self._limits.buy_retry(throttled=_throttled(state.outcome))
        if not price:
            events.emit(
                events.RetryRefused(call.service, call.operation, state.attempt_number, _cause(state.outcome))
            )
        return price

    def _pause(self, state: RetryCallState) -> float | None:
        hint = None
        if state.outcome is not None and not state.outcome.failed:
            hint = policy.retry_after(state.outcome.result().headers.get("retry-after"), datetime.now(UTC))
        if self._limits.held:
            hint = max(hint or 0.0, self._limits.held)
        left = remaining(self._bottom.clock)
        return policy.pause(self._config, state.attempt_number, self._bottom.chance(), left, hint)

    async def aclose(self) -> None:
        """Close what is wrapped."""
        await self._inner.aclose()


def _may_pass(call: Call, outcome: Future | None) -> bool:
    """Say whether this outcome may be followed by another try."""
    if outcome is None:
        return False
    if outcome.failed:
        error = outcome.exception()
        return isinstance(error, SERVICE_FAULTS) and (call.idempotent or unsent(error))
    allowed = policy.RETRYABLE_STATUSES if call.idempotent else policy.UNPROCESSED_STATUSES
    return outcome.result().status_code in allowed


def _throttled(outcome: Future | None) -> bool:
    """Say whether the service itself said that it is too much."""
    return (
        outcome is not None and not outcome.failed and outcome.result().status_code in policy.UNPROCESSED_STATUSES
    )


def _cause(outcome: Future | None) -> str:
    if outcome is None:
        return "unknown"
    return type(outcome.exception()).__name__ if outcome.failed else f"HTTP {outcome.result().status_code}"
