"""How a question gets its answer: from the cache, from the service, or from whoever is asking the service already.

One caller asks; the others are served what is kept, or wait in small naps for as long as a call of their own
might take. While something older is at hand, a failing service costs one try's time, and the caller gets the older
answer, marked. Whoever was told to ask hands the lease back, however the asking ends.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson

from bridge_tasks import events
from bridge_tasks.cache.port import Cache, Found, Kept, Question
from bridge_tasks.errors import ClientError, RateLimited, ServiceUnavailableError
from bridge_tasks.resilience.policy.caching import CacheRules, Life, Verdict
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.deadline import remaining, within

T = TypeVar("T")
Data = dict[str, Any]

_FIRST_NAP, _LONGEST_NAP, _GROWTH = 0.005, 0.1, 1.6
"""Seconds between looks while another caller asks."""


@dataclass(frozen=True, slots=True)
class Asking:
    """One question to a service, and what its answers are worth.

    Attributes:
        service: who is asked.
        operation: the verb, for events and messages.
        question: what it is called in the cache.
        ask: asks the service for the answer's data.
        worth_keeping: whether data are a real answer, not an emergency's.
        final: whether a refusal is itself an answer to keep for a while.
    """

    service: str
    operation: str
    question: Question
    ask: Callable[[], Awaitable[Data]]
    worth_keeping: Callable[[Data], bool]
    final: Callable[[ClientError], bool]


class Answering:
    """Answers questions over a cache.

    Args:
        cache: where answers are kept.
        rules: how they age.
        bottom: how one waits, and what time it is.
        patience: seconds that the service gets while an older answer is at hand.
        deadline: seconds that a caller waits for another's question.
    """

    def __init__(
        self, cache: Cache, rules: CacheRules, bottom: Bottom, *, patience: float, deadline: float
    ) -> None:
        self._cache = cache
        self._rules = rules
        self._bottom = bottom
        self._patience = patience
        self._deadline = deadline

    async def answer(
        self, asking: Asking, read: Callable[[Data], T], ttl: float, looked: Callable[[bool], None]
    ) -> T:
        """Answer from the cache, or ask.

        Args:
            asking: the question.
            read: turns data into what the caller gets; raises `ClientError` for data of another shape.
            ttl: seconds that a new answer is fresh.
            looked: told once whether the cache had an answer.

        Raises:
            ClientError: the service refused, and nothing kept may stand in.
            ServiceUnavailableError: it is down, or another caller found it so a moment ago.
        """
        ends = self._bottom.clock() + min(self._deadline, remaining(self._bottom.clock))
        nap = _FIRST_NAP
        found = await self._cache.look(asking.question)
        looked(found.usable)
        waited = False
        while True:
            match found.verdict:
                case Verdict.FILL:
                    return await self._fill(asking, read, ttl, found)
                case Verdict.SERVE:
                    known = self._known(asking, read, found.kept)
                    if known is not None:
                        if waited:
                            events.emit(events.AnswerShared(asking.service, asking.operation))
                        return known()
                    await self._cache.drop(asking.question)
                case Verdict.FAILED:
                    raise self._not_available(asking)
                case Verdict.WAIT:
                    left = ends - self._bottom.clock()
                    if left <= 0:
                        return self._stand_in(asking, read, found.kept, self._not_available(asking))
                    await self._bottom.sleep(min(left, nap * (0.5 + self._bottom.chance())))
                    nap = min(nap * _GROWTH, _LONGEST_NAP)
            waited = True
            found = await self._cache.look(asking.question, waiting=True)

    async def ask(self, asking: Asking, read: Callable[[Data], T], ttl: float) -> T:
        """Ask the service whatever the cache knows, and keep the answer."""
        began = self._bottom.clock()
        data = await asking.ask()
        answer = read(data)
        if asking.worth_keeping(data):
            await self._keep(asking, data, self._rules.life(ttl), began, None)
        return answer

    async def _fill(self, asking: Asking, read: Callable[[Data], T], ttl: float, found: Found) -> T:
        began = self._bottom.clock()
        older = found.kept if found.kept and not found.kept.refusal else None
        try:
            with within(self._patience, self._bottom.clock) if older else nullcontext():
                data = await asking.ask()
            answer = read(data)
        except ClientError as error:
            if asking.final(error):
                refusal = {"message": error.message, "status": error.status, "code": error.code}
                await self._keep(asking, refusal, self._rules.refusal_life, began, found.lease, refusal=True)
                raise
            refused = _is_refusal(error)
            # Our own rate limit says nothing of the service: the next caller may find a token.
            failed = not refused and not isinstance(error, RateLimited)
            await self._cache.give_up(asking.question, found.lease, failed=failed)
            if refused:
                raise
            return self._stand_in(asking, read, older, error)
        except BaseException:
            await self._cache.give_up(asking.question, found.lease, failed=False)
            raise
        if asking.worth_keeping(data):
            await self._keep(asking, data, self._rules.life(ttl), began, found.lease)
            return answer
        await self._cache.give_up(asking.question, found.lease, failed=True)
        known = self._known(asking, read, older, "an emergency answer")
        return known() if known else answer

    async def _keep(
        self,
        asking: Asking,
        data: Mapping[str, Any],
        life: Life,
        began: float,
        lease: str | None,
        *,
        refusal: bool = False,
    ) -> None:
        """Keep an answer; one that cannot be packed (a number beyond 64 bits, say) is let go."""
        try:
            packed = orjson.dumps(data)
        except orjson.JSONEncodeError:
            await self._cache.give_up(asking.question, lease, failed=False)
            return
        took = max(0.0, self._bottom.clock() - began)
        await self._cache.keep(asking.question, Kept(packed, took, replace(life, cost=took), refusal), lease)

    def _stand_in(self, asking: Asking, read: Callable[[Data], T], older: Kept | None, error: ClientError) -> T:
        known = self._known(asking, read, older, str(error))
        if known is None:
            raise error
        return known()

    def _known(
        self, asking: Asking, read: Callable[[Data], T], kept: Kept | None, cause: str = "its time is over"
    ) -> Callable[[], T] | None:
        """Return what serves the answer that is kept; None if there is none, or it cannot be read."""
        try:
            data = orjson.loads(kept.packed) if kept else None
            if kept is None or not isinstance(data, dict):
                return None
            if kept.refusal:
                return _refusing(data)
            answer = read(_marked(data, kept.age) if kept.stale else data)
        except (orjson.JSONDecodeError, ClientError):
            return None
        if kept.stale:
            events.emit(events.StaleAnswerServed(asking.service, asking.operation, kept.age, cause))
        return lambda: answer

    def _not_available(self, asking: Asking) -> ServiceUnavailableError:
        error = ServiceUnavailableError(
            f"{asking.service} {asking.operation}: another caller is asking the same, in vain so far"
        )
        error.unsent = True
        return error


def _is_refusal(error: ClientError) -> bool:
    """Tell a service that says no (4xx) from one that is down, overloaded, or out of its mind."""
    return not isinstance(error, ServiceUnavailableError) and error.status is not None and error.status // 100 == 4  # noqa: PLR2004 - the class of 4xx


def _marked(data: Data, age: float) -> Data:
    """Say on the answer itself that it is past its time, and how old it is."""
    metadata = data.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    return {**data, "metadata": {**known, "stale": True, "age_seconds": round(age, 1)}}


def _refusing(refusal: Data) -> Callable[[], Any] | None:
    message, status, code = (refusal.get(part) for part in ("message", "status", "code"))
    if not isinstance(message, str):
        return None

    def refuse() -> Any:
        raise ClientError(message, status, code)

    return refuse
