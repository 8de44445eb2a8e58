"""What our tasks do, told without a queue: requests in, answers out, over the clients and the content store.

Each is written once, as a coroutine, for tasks and asyncio programs alike. Resilience is below, retrying a whole
job above; here a failure is an error and nothing is swallowed.
"""

from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any

from pydantic import ValidationError

from bridge_tasks import idempotency, once
from bridge_tasks.clients.metadata_stamping_client import AsyncMetadataStampingClient
from bridge_tasks.clients.onextree_client import AsyncOnexTreeClient, IntelligenceResult
from bridge_tasks.content import ContentStore, Opened, hashing
from bridge_tasks.errors import BridgeError, ClientError, ContentUnavailable
from bridge_tasks.models import requests as ask
from bridge_tasks.models.content import ContentRef
from bridge_tasks.models.fields import Hashing
from bridge_tasks.models.requests import BatchItem
from bridge_tasks.models.stamp_text import attach, clean, find_stamps, has_stamp
from bridge_tasks.models.stamping import BatchStamped, Enriched, Hashed, ServiceHealth, Stamped, Validated


@dataclass(frozen=True, slots=True)
class Services:
    """Whom the operations talk to."""

    metadata: AsyncMetadataStampingClient
    onextree: AsyncOnexTreeClient
    content: ContentStore
    sample: hashing.Sample = field(default_factory=hashing.Sample)


async def generate_hash(services: Services, request: ask.GenerateHash) -> Hashed:
    """Hash content, streaming it."""
    with await services.content.open(request.content) as opened:
        return await _hash(services, opened, request.namespace)


async def get_intelligence(services: Services, request: ask.GetIntelligence) -> Enriched:
    """Ask about a context; the hash that came along goes on with the answer."""
    answer = await services.onextree.get_intelligence(
        request.context,
        request.include_patterns,
        request.include_relationships,
        use_cache=request.use_cache,
        enable_fallback=request.fallback,
        tags=_tags(request.namespace),
    )
    return _enriched(answer, request.context, request.hashed)


async def create_stamp(services: Services, request: ask.CreateStamp) -> Stamped:
    """Stamp a file whose hash is known, with the intelligence that came along; once (see `once`)."""
    text = await _stampable_text(services, request.content)
    return await _stamp(services, request, text, look=_resumed())


async def stamp_file(services: Services, request: ask.StampFile) -> Stamped:
    """Do the whole job: hash, intelligence, stamp. The content is opened once, so all three mean the same.

    A job that is resumed and finds its stamp is done: no intelligence is asked for.
    """
    with await services.content.open(request.content) as opened:
        hashed = await _hash_by(request.hashing, services, opened, request.namespace)
        text = await stampable(services, opened)
    if _resumed():
        wanted = once.Wanted(hashed.hash, request.file_path, request.namespace, text)
        found = await once.standing(services.metadata, wanted)
        if found is not None:
            return _stamped(wanted, hashed.file_size_bytes, found, degraded=False)
    answer = await services.onextree.get_intelligence(request.context, tags=_tags(request.namespace))
    enriched = _enriched(answer, request.context, None)
    try:
        stamp = ask.CreateStamp(
            file_hash=hashed.hash,
            file_path=request.file_path,
            file_size=hashed.file_size_bytes,
            stamp_data=request.stamp_data,
            content_type=request.content_type,
            namespace=request.namespace,
            intelligence=enriched.model_dump(exclude={"hashed"}),
            degraded=enriched.degraded,
        )
    except ValidationError as error:
        raise ask.refusal(error) from error
    return await _stamp(services, stamp, text, look=False)


async def get_stamp(services: Services, request: ask.GetStamp) -> dict[str, Any] | None:
    """Look a stamp up by hash; None where there is none."""
    return await services.metadata.get_stamp(request.file_hash, request.namespace)


async def validate_stamp(services: Services, request: ask.ValidateStamp) -> Validated:
    """Check content against the stamps in it or, if it has none, against the stamp the service holds for it."""
    text = await _text(services, request.content)
    if has_stamp(text):
        return await _validated(services, request, text, source="embedded")
    row = await _registered(services, request, text)
    if row is None:
        return Validated(valid=False, source="none", stamps_found=0, valid_stamps=0, invalid_stamps=0)
    stamp_id = row.get("stamp_id")
    stamp = (row.get("stamp_data") or {}).get("stamp")
    found = find_stamps(stamp) if isinstance(stamp, str) else []
    if (
        not isinstance(stamp, str) or not found
    ):  # a service that keeps no stamp text: its record for this very content is the answer
        return Validated(
            valid=True, source="registry", stamps_found=1, valid_stamps=1, invalid_stamps=0, stamp_id=stamp_id
        )
    stamped = attach(stamp, found[0].kind, text)
    return await _validated(services, request, stamped, source="registry", stamp_id=stamp_id)


async def validate_protocol(services: Services, request: ask.ValidateProtocol) -> dict[str, Any]:
    """Check content against a protocol."""
    text = await _text(services, request.content)
    return await services.metadata.validate_protocol(
        text, request.target_protocol, request.validation_level, request.namespace
    )


async def batch_create_stamps(services: Services, request: ask.BatchCreateStamps) -> BatchStamped:
    """Stamp several files with one call, each once (see `once`); the answer tells of each, in order."""
    items = [await _batch_item(services, item) for item in request.items]
    limit = services.content.settings.max_text_bytes
    if sum(len(item.get("content", "")) for item in items) > limit:
        raise ContentUnavailable(f"the texts of a batch are at most {limit} bytes together: make it smaller")
    results = await once.batch(services.metadata, items, request.namespace)
    successful = sum(bool(result.get("success")) for result in results)
    return BatchStamped(
        total=len(results),
        successful=successful,
        failed=len(results) - successful,
        results=[{key: result[key] for key in result if key != "stamped_content"} for result in results],
    )


async def query_knowledge(services: Services, request: ask.QueryKnowledge) -> dict[str, Any]:
    """Query the knowledge graph."""
    return await services.onextree.query_knowledge(
        request.query,
        request.max_depth,
        request.filters,
        use_cache=request.use_cache,
        tags=_tags((request.filters or {}).get("namespace")),
    )


async def navigate_tree(services: Services, request: ask.NavigateTree) -> dict[str, Any]:
    """Walk the tree from a node."""
    return await services.onextree.navigate_tree(
        request.start_node, request.direction, request.max_nodes, use_cache=request.use_cache
    )


async def warm_cache(services: Services, request: ask.WarmCache) -> dict[str, int]:
    """Ask what will be asked often; how many answers are `known` now, and how many `failed`."""
    return await services.onextree.warm_cache(request.contexts)


async def check_health(services: Services, request: ask.CheckHealth) -> dict[str, ServiceHealth]:
    """Ask both services how they are; trouble is an answer, not an error."""
    del request
    return {
        "metadata": await _health(services.metadata),
        "onextree": await _health(services.onextree),
    }


async def _health(client: AsyncMetadataStampingClient | AsyncOnexTreeClient) -> ServiceHealth:
    error = None
    try:
        body = await client.health_check()
        status = str((body.get("data") or body).get("status", "unknown"))
    except BridgeError as trouble:
        status, error = "unreachable", str(trouble)
    return ServiceHealth(
        healthy=status in client.HEALTHY, status=status, circuit=client.circuit_breaker.state, error=error
    )


async def _hash(services: Services, opened: Opened, namespace: str) -> Hashed:
    answer = await services.metadata.generate_hash(opened.file, namespace)
    known = {"file_size_bytes": opened.size, **answer}
    try:
        return Hashed(**{key: known[key] for key in Hashed.model_fields if key in known})
    except ValidationError as error:
        raise ClientError("Hash generation failed: the answer has an unknown shape") from error


async def _hash_by(who: Hashing | None, services: Services, opened: Opened, namespace: str) -> Hashed:
    if who != "local":
        return await _hash(services, opened, namespace)
    computed = hashing.blake3_of(opened)
    if services.sample.is_due():
        hashing.confirm(computed, (await _hash(services, opened, namespace)).hash)
    return Hashed(hash=computed, file_size_bytes=opened.size)


def _tags(namespace: Any) -> tuple[str, ...]:
    """By what a job's cached answers can be made void: its namespace."""
    return (f"namespace:{namespace}",) if isinstance(namespace, str) else ()


def _enriched(answer: IntelligenceResult, context: str, hashed: Hashed | None) -> Enriched:
    return Enriched(
        intelligence=answer.intelligence,
        patterns=answer.patterns,
        relationships=answer.relationships,
        metadata=answer.metadata,
        confidence={**answer.confidence.model_dump(), "overall": answer.confidence.overall},
        degraded=answer.degraded,
        context=context,
        hashed=hashed,
    )


def _resumed() -> bool:
    effect = idempotency.current()
    return effect is not None and effect.resumed


async def _stamp(services: Services, request: ask.CreateStamp, text: str | None, *, look: bool) -> Stamped:
    known = request.intelligence
    learned = {"intelligence": known, "context": known.get("context")} if known is not None else {}
    send = partial(
        services.metadata.create_stamp,
        request.file_hash,
        request.file_path,
        request.file_size,
        {**request.stamp_data, **learned},
        request.content_type,
        request.namespace,
        content=text,
    )
    wanted = once.Wanted(request.file_hash, request.file_path, request.namespace, text)
    answer = await once.stamp(services.metadata, wanted, lambda again: send(idempotent=again), look=look)
    return _stamped(wanted, request.file_size, answer, degraded=request.degraded)


def _stamped(wanted: once.Wanted, size: int, answer: dict[str, Any], *, degraded: bool) -> Stamped:
    """Tell of a stamp; one that stands may say by itself whether it is degraded."""
    told = answer.get("degraded")
    return Stamped(
        path=wanted.file_path,
        hash=wanted.file_hash,
        file_size=size,
        namespace=answer.get("namespace") or wanted.namespace,
        stamp_id=answer.get("stamp_id"),
        stamp_hash=answer.get("file_hash"),
        stamp=answer.get("stamp"),
        created_at=answer.get("created_at"),
        degraded=told if isinstance(told, bool) else degraded,
    )


async def stampable(services: Services, opened: Opened) -> str | None:
    """The text that is stamped; None for other content, where the service does without."""
    try:
        return opened.text(services.content.settings.max_text_bytes)
    except ContentUnavailable:
        if await services.metadata.needs_content():
            raise
        return None


async def _stampable_text(services: Services, content: ContentRef | None) -> str | None:
    if content is None:
        return None
    with await services.content.open(content) as opened:
        return await stampable(services, opened)


async def _text(services: Services, content: ContentRef) -> str:
    with await services.content.open(content) as opened:
        return opened.text(services.content.settings.max_text_bytes)


async def _registered(services: Services, request: ask.ValidateStamp, text: str) -> dict[str, Any] | None:
    """The service's stamp for this content: by the hash of its cleaned text, or of the bytes as they are."""
    for candidate in dict.fromkeys((clean(text), text)):
        raw = candidate.encode()
        hashed = await _hash(services, Opened(BytesIO(raw), len(raw)), request.namespace or "default")
        row = await services.metadata.get_stamp(hashed.hash, request.namespace)
        if row is not None:
            return row
    return None


async def _validated(
    services: Services, request: ask.ValidateStamp, text: str, *, source: str, stamp_id: str | None = None
) -> Validated:
    answer = await services.metadata.validate_stamp(text, request.namespace, expected_hash=request.expected_hash)
    return Validated(
        valid=bool(answer.get("validation_result")),
        source=source,
        stamps_found=answer.get("stamps_found", 0),
        valid_stamps=answer.get("valid_stamps", 0),
        invalid_stamps=answer.get("invalid_stamps", 0),
        current_hash=answer.get("current_hash"),
        stamp_id=stamp_id,
        details=answer.get("details", []),
    )


async def _batch_item(services: Services, item: BatchItem) -> dict[str, Any]:
    plain = item.model_dump(exclude={"content"}, exclude_none=True)
    text = await _stampable_text(services, item.content)
    return plain if text is None else {**plain, "content": text}
