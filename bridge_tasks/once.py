"""Stamps that are made once, however often the job that makes them is run.

Where an effect is bound (`idempotency`), nothing is sent again before the service was asked whether it is there
already. The key that goes along is help where a service knows such keys; this module must never rely on it.
Without an effect, what fails has failed: whoever calls decides.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx

from bridge_tasks import idempotency
from bridge_tasks.clients.metadata_stamping_client import AsyncMetadataStampingClient
from bridge_tasks.content import hashing
from bridge_tasks.errors import ClientError, ServiceUnavailableError
from bridge_tasks.models.stamp_text import clean
from bridge_tasks.resilience.policy.retry import UNPROCESSED_STATUSES
from bridge_tasks.resilience.transport.call import unsent

T = TypeVar("T")

Answer = dict[str, Any]

NO_DATABASE = "DATABASE_NOT_CONFIGURED"
"""How a service says that it keeps nothing, so that nothing is there to be found."""

KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
"""How a service says that it did something under this key, with other data."""

_UNPROCESSABLE = httpx.codes.UNPROCESSABLE_ENTITY.value
_KEY_CONFLICTS = frozenset({httpx.codes.CONFLICT.value, httpx.codes.UNPROCESSABLE_ENTITY.value})
"""The key is in use, or was used with other data: intelligence, say, that is never twice the same."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The stamp that a job is to make; `kept_under` is the service's own hash of the text, where it is known."""

    file_hash: str
    file_path: str
    namespace: str
    text: str | None
    kept_under: str | None = None


async def standing(metadata: AsyncMetadataStampingClient, wanted: Wanted) -> Answer | None:
    """Return the stamp that is there already, as `create_stamp` would answer it, or None.

    A stamp of the same text stands for the job's own if it has the job's path or is in its namespace: the service
    keeps one per text. `degraded` tells whether its intelligence was a fallback, where it has any.

    Raises:
        ClientError: it cannot be found out.
    """
    try:
        row = await metadata.get_stamp(await _kept_under(metadata, wanted))
    except ServiceUnavailableError as error:
        if error.code == NO_DATABASE:
            return None
        raise
    if row is None or (row.get("file_path") != wanted.file_path and row.get("namespace") != wanted.namespace):
        return None
    kept = _object(row.get("stamp_data"))
    learned = _object(_object(kept.get("metadata", kept)).get("intelligence"))
    answer = {key: row.get(key) for key in ("stamp_id", "file_hash", "file_path", "namespace", "created_at")}
    return {**answer, "stamp": _text(kept.get("stamp")), "degraded": learned.get("degraded")}


async def stamp(
    metadata: AsyncMetadataStampingClient, wanted: Wanted, send: Callable[[bool], Awaitable[Answer]], *, look: bool
) -> Answer:
    """Send the request for one stamp, or answer with what stands.

    Args:
        metadata: whom to ask.
        wanted: the stamp.
        send: sends it; told whether it may be sent again when nobody knows if it arrived.
        look: whether to look before the first time already.

    Raises:
        ClientError: it failed, and nothing stands.
    """
    if idempotency.current() is None:
        return await send(True)
    found = await standing(metadata, wanted) if look else None
    sends = 0
    while found is None:
        try:
            return await send(False)
        except ClientError as error:
            if not _may_have_been_done(error):
                raise
            sends += 1
            found = await _found_out(standing(metadata, wanted))
            if found is None and error.status == _UNPROCESSABLE and error.code != KEY_REUSED:
                raise  # it was refused, and nobody did it before
            if found is None and not error.retryable:
                raise _open(error) from error
            if found is None and sends >= metadata.retry.attempts:
                raise
    return found


async def batch(
    metadata: AsyncMetadataStampingClient, items: Sequence[Mapping[str, Any]], namespace: str
) -> list[Answer]:
    """Stamp items with one call, but for those that stand; an item that fails because it stands has succeeded.

    Returns:
        What became of each item, in order.

    Raises:
        ClientError: the call failed, or every item did; then `data` holds the results.
    """
    named = [{**item, "id": item.get("id") or f"item_{index}"} for index, item in enumerate(items)]
    job = _Batch(metadata, named, namespace)
    effect = idempotency.current()
    if effect is not None and effect.resumed:
        await job.look()
    sends = 0
    while job.open:
        try:
            await job.send()
            break
        except ClientError as error:
            if effect is None or not _may_have_been_done(error):
                raise
            sends += 1
            await _found_out(job.look())
            if job.open and (not error.retryable or sends >= metadata.retry.attempts):
                raise
    return job.ended()


class _Batch:
    """The items of one call, and what has become of them so far."""

    def __init__(
        self, metadata: AsyncMetadataStampingClient, items: Sequence[Mapping[str, Any]], namespace: str
    ) -> None:
        self._metadata = metadata
        self._items = items
        self._namespace = namespace
        self._results: dict[int, Answer] = {}
        self._refusal: ClientError | None = None

    @property
    def open(self) -> list[int]:
        """The places of the items of which nothing is known."""
        return [index for index in range(len(self._items)) if index not in self._results]

    async def look(self) -> None:
        """Find out which of the open items stand, one by one."""
        for index in self.open:
            found = await standing(self._metadata, self._wanted(index))
            if found is not None:
                self._results[index] = _succeeded(self._items[index], found)

    async def send(self) -> None:
        """Send the open items, and look for each that the service refused."""
        places = self.open
        for index, result in zip(places, await self._answers([self._items[at] for at in places]), strict=True):
            self._results[index] = result if result.get("success") else await self._explained(index, result)

    async def _answers(self, items: list[Mapping[str, Any]]) -> list[Answer]:
        try:
            answer = await self._metadata.batch_create_stamps(items, self._namespace)
        except ClientError as error:
            answer = error.data or {}
            if not _told_of_each(answer, items):
                raise
            self._refusal = error
        if not _told_of_each(answer, items):
            raise ClientError("Batch stamping failed: the answer does not tell of each item")
        return [_object(result) for result in answer["results"]]

    async def _explained(self, index: int, result: Answer) -> Answer:
        """Why an item failed is not believed in words: if its stamp stands, nothing is wrong."""
        told = _text(result.get("file_hash"))
        found = await _found_out(standing(self._metadata, replace(self._wanted(index), kept_under=told)))
        return result if found is None else {**result, **_succeeded(self._items[index], found)}

    def ended(self) -> list[Answer]:
        """Return what became of each item.

        Raises:
            ClientError: every item was refused.
        """
        results = [self._results[index] for index in range(len(self._items))]
        if self._refusal is not None and not any(result.get("success") for result in results):
            raise self._refusal
        return results

    def _wanted(self, index: int) -> Wanted:
        item = self._items[index]
        return Wanted(
            item["file_hash"], item["file_path"], item.get("namespace") or self._namespace, item.get("content")
        )


async def _kept_under(metadata: AsyncMetadataStampingClient, wanted: Wanted) -> str:
    """Return the hash under which the service keeps the stamp: of the text without stamps and outer white space.

    Where that is the whole text, the job's own hash is taken at its word.
    """
    if wanted.kept_under is not None:
        return wanted.kept_under
    if wanted.text is None or not await metadata.needs_content():
        return wanted.file_hash
    cleaned = clean(wanted.text)
    if cleaned == wanted.text:
        return wanted.file_hash
    raw = cleaned.encode()
    if hashing.available():
        return hashing.blake3_of(raw)
    return str((await metadata.generate_hash(raw))["hash"])


async def _found_out(looking: Awaitable[T]) -> T:
    """Look for what may have been done; as long as that cannot be found out, the job has not failed.

    Raises:
        ServiceUnavailableError: it cannot be found out now.
    """
    try:
        return await looking
    except ClientError as error:
        if error.retryable:
            raise
        raise _open(error) from error


def _open(error: ClientError) -> ServiceUnavailableError:
    """Return what to raise where nobody can be sure: what is tried again looks again."""
    return ServiceUnavailableError(
        f"it is not known yet whether the service did it: {error}", error.status, error.code, error.retry_after
    )


def _may_have_been_done(error: ClientError) -> bool:
    """Say whether the service may have done its work although its answer, or none, says otherwise."""
    if error.unsent or error.status in UNPROCESSED_STATUSES:
        return False
    if error.status is None:  # nothing came, or something that makes no sense
        return error.__cause__ is None or not unsent(error.__cause__)
    return error.status >= httpx.codes.INTERNAL_SERVER_ERROR or error.status in _KEY_CONFLICTS


def _told_of_each(answer: Mapping[str, Any], items: Sequence[Any]) -> bool:
    results = answer.get("results")
    return isinstance(results, list) and len(results) == len(items)


def _succeeded(item: Mapping[str, Any], found: Answer) -> Answer:
    told = {key: found[key] for key in ("stamp_id", "file_hash", "file_path", "namespace", "created_at", "stamp")}
    return {"id": item["id"], "success": True, "error": None, **told}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
