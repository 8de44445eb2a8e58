"""What all our tasks have in common: validated arguments, a deadline, and failures that say what they are.

A task is a function from a request model to a result. Its message carries the request's fields as keywords and, in
a chain, the previous result as the one positional argument. Bad input is refused in `apply_async`, before anything
is sent, and again in the worker, for messages from elsewhere. No task retries except through here. A run that
ended because a call was kept back (circuit open, service busy, rate used up), or failed while the circuit was not
closed (a probe, the call that opened it), loses no attempt.
"""

import inspect
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, NoReturn, TypeVar, cast

from celery.exceptions import Ignore, Reject, Retry
from celery.result import AsyncResult
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from bridge_tasks import correlation, events, idempotency
from bridge_tasks.app import app
from bridge_tasks.content import vet
from bridge_tasks.errors import BridgeError, ClientError, InvalidRequest
from bridge_tasks.idempotency import Effect
from bridge_tasks.ledger import Claim, Outcome
from bridge_tasks.ledger.runs import chunk_job
from bridge_tasks.messages import HEADER, ITEM, ITEM_SHAPE, WAITS
from bridge_tasks.models.content import describe
from bridge_tasks.models.requests import TaskRequest, refusal
from bridge_tasks.resilience.policy.retry import backoff
from bridge_tasks.resilience.transport.deadline import within
from bridge_tasks.settings import load
from bridge_tasks.tasks import claiming
from bridge_tasks.tasks.steps import Step

R = TypeVar("R", bound=TaskRequest)

SPREAD = 0.25
"""A countdown that was asked for is prolonged by up to this share, so that not all jobs come back at once."""

_SERVER_ERROR = 500

LONGEST_WAIT = 10.0
"""Seconds after which a job whose call was kept back looks again, unless it was told to stay away for longer."""


class BridgeTask(Step, Generic[R]):
    """The base of every task of ours.

    `task.delay(content=..., namespace=...)`, `task.s(...)`, `task.apply_async(kwargs=...)` all take the fields of
    `task.request_model`, as JSON or as models.

    Raises (when submitted, and in the worker):
        InvalidRequest: an argument is wrong; `field` and `reason` say which and why. Nothing was sent.
    """

    abstract = True
    typing = False  # Celery would check run()'s signature; the request model checks far more.
    throws = (BridgeError,)  # Expected: no traceback in the log, our own line tells.
    request_model: type[R]

    @property
    def max_retries(self) -> int:  # type: ignore[override] # Celery's is a plain attribute
        """Runs after the first; Celery asks when a worker's child died under the task."""
        return load().task.retry.attempts - 1

    @property
    def default_retry_delay(self) -> float:  # type: ignore[override] # the same; Celery's 3 minutes are for no one
        """Seconds until a task whose worker's child died runs again."""
        return load().task.retry.initial

    def apply_async(  # type: ignore[override] # the stubs list every option; they are Celery's to check
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncResult[Any]:
        """Check the arguments and send the task. Options are Celery's."""
        # What a worker publishes (retries, what waits, the steps after one that ended) is checked where it runs:
        # what is wrong with a step is that step's failure.
        headers = options.get("headers") or {}
        if not options.get("retries") and WAITS not in headers and "parent_id" not in options:
            _check_correlation(options.get("headers"))
            args, kwargs = (), self.check(args or (), kwargs or {}).model_dump(mode="json", exclude_none=True)
        return super().apply_async(tuple(args or ()), dict(kwargs or {}), **options)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> R:
        """Read the arguments, and refuse content that workers may not read.

        Raises:
            InvalidRequest: see `parse` and `content.vet`.
        """
        request = self.parse(args, kwargs)
        _vet_all(request)
        return request

    def parse(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> R:
        """Read the arguments of a message or a call.

        Raises:
            InvalidRequest: they are not what the task takes.
        """
        if len(args) > 1 or not isinstance(kwargs, Mapping):
            raise InvalidRequest("arguments", "give them by name; only a chain passes one, the previous result")
        given = {key: _plain(key, value) for key, value in kwargs.items()}
        if args:
            given = self.request_model.following(_plain("previous", args[0]), given)
        try:
            return self.request_model.model_validate(given)
        except ValidationError as error:
            raise refusal(error) from None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run here and now: parse, work within the deadline, answer plain JSON; put back what may pass."""
        began = time.monotonic()
        subject = None
        claim = None
        try:
            if self._queued:
                claim = claiming.claim(self.request)
                if claim.outcome is not None:
                    return claim.outcome.result
            request = self.parse(args, kwargs)
            subject = _subject(request)
            with within(load().task.deadline), self._once(claim):
                answer = to_jsonable_python(self.run(request))
        except BridgeError as error:
            again = self._may_retry(error, claim)
            self._tell("retried" if again else "failed", began, subject, error)
            if again:
                self._put_back(error)
            raise
        except (Ignore, Reject):
            raise
        except Exception as error:
            self._tell("failed", began, subject, error)
            raise
        self._tell("succeeded", began, subject, None)
        return answer

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Tell the ledger; Celery calls this once the steps that follow are sent.

        A task whose end were on record before would not be run again for their sake, if its worker died between.
        """
        del args, kwargs
        if self._queued:
            claiming.note(task_id, Outcome("succeeded", retval))

    @property
    def _queued(self) -> bool:
        """Whether a message asks for this run."""
        return not (self.request.called_directly or self.request.is_eager)

    def _once(self, claim: Claim | None) -> AbstractContextManager[object]:
        """Name the effect of this run, the same in every run of the job; a call outside a queue has none."""
        if claim is None:
            return nullcontext()
        run, chunk, index = self._item
        # A file of a run that goes on alone may have been stamped by the call for all of its chunk: one effect.
        name = chunk_job(run, int(chunk)) if index else str(self.request.id)
        return idempotency.bound(Effect(idempotency.key_of(name), resumed=self._is_resumed(claim)))

    @property
    def _item(self) -> tuple[str, str, str]:
        """Of which run, chunk and file the message is; all empty where it is of none."""
        told = str((self.request.headers or {}).get(ITEM) or "")
        run, chunk, index = told.split("|") if ITEM_SHAPE.fullmatch(told) else ("", "", "")
        return run, chunk, index

    def _is_resumed(self, claim: Claim | None) -> bool:
        """Whether a run before this one may have brought the effect about."""
        before = (self.request.headers or {}).get("redelivered") or self._item[2]
        return claim is not None and (claim.runs > 0 or self.request.retries > 0 or bool(before))

    def _may_retry(self, error: BridgeError, claim: Claim | None) -> bool:
        if self.request.called_directly:
            return False
        # What a run before may have done is done: nonsense that keeps this one from seeing it is no end.
        if not error.retryable and not (self._is_resumed(claim) and _is_nonsense(error)):
            return False
        # Run eagerly, there is no queue to wait in: a wait is an attempt, or there would be no end of them.
        if error.blameless and not self.request.is_eager:
            return True
        return self.request.retries + 1 < load().task.retry.attempts

    def _put_back(self, error: BridgeError) -> NoReturn:
        policy = load().task.retry
        chance = random.random()  # noqa: S311 - spread, not secrecy
        headers: dict[str, Any] = dict(self.request.headers or {})
        if error.blameless and not self.request.is_eager:
            headers[WAITS] = waits = _count(headers.get(WAITS)) + 1
            pause = min(backoff(policy, waits, chance), LONGEST_WAIT)
            self.request.retries -= 1  # Celery adds one: this run was no attempt
        else:
            pause = backoff(policy, self.request.retries + 1, chance)
        wait = max(pause, (error.retry_after or 0.0) * (1 + SPREAD * chance))
        raise self.retry(exc=error, countdown=min(wait, policy.maximum), headers=headers)

    def _tell(self, outcome: str, began: float, subject: str | None, error: Exception | None) -> None:
        events.emit(
            events.JobFinished(
                task=self.name,
                task_id=self.request.id or "direct",
                outcome=outcome,
                seconds=time.monotonic() - began,
                attempt=self.request.retries + 1,
                error=_told(error),
                subject=subject,
            )
        )


def bridge_task(name: str) -> Callable[[Callable[[R], Any]], BridgeTask[R]]:
    """Make a task of a function that takes one request model; `name` is what messages call it."""

    def make(function: Callable[[R], Any]) -> BridgeTask[R]:
        (parameter,) = inspect.signature(function).parameters.values()
        make_task = app.task(name=name, base=BridgeTask, request_model=parameter.annotation)
        return cast("BridgeTask[R]", make_task(function))

    return make


def _plain(field: str, value: Any) -> Any:
    """Turn models, UUIDs and dates into plain JSON; refuse other objects, bytes that are no text, and cycles."""
    try:
        return to_jsonable_python(value)
    except (ValueError, RecursionError):
        raise InvalidRequest(field, "must be plain JSON, without cycles and not too deep") from None


def _vet_all(request: TaskRequest) -> None:
    for where, content in request.contents():
        try:
            vet(content, load().content)
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}{error.field}", error.reason) from None


def _is_nonsense(error: BridgeError) -> bool:
    """Whether a service broke, or said nothing that makes sense: no word about the job itself."""
    return isinstance(error, ClientError) and (error.status is None or error.status >= _SERVER_ERROR)


def _count(told: Any) -> int:
    """Read a count from a message, which may say anything."""
    return min(told, 1_000_000) if isinstance(told, int) and told > 0 else 0


def _check_correlation(headers: Mapping[str, Any] | None) -> None:
    given = (headers or {}).get(HEADER)
    if given is not None:
        correlation.parse(given)


def _subject(request: BaseModel) -> str | None:
    """What a job is about, for logs: its file, its content, or its question."""
    for name in ("file_path", "content", "context", "query", "start_node", "file_hash"):
        value = getattr(request, name, None)
        if value is not None:
            return value if isinstance(value, str) else describe(value)
    return None


def _told(error: Exception | None) -> str | None:
    """Our own errors are made to be shown; of any other only its name is."""
    if error is None or isinstance(error, Retry):
        return None
    return str(error) if isinstance(error, BridgeError) else type(error).__name__
