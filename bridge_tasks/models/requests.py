"""What each task takes: one frozen model per task, validated before a message is sent and again on arrival.

A task's keyword arguments are its request's fields. What comes from the step before, in a chain, arrives as the
one positional argument and is taken in by `following`; a task that takes nothing says so.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, field_validator

from bridge_tasks.errors import InvalidRequest
from bridge_tasks.idempotency import PATTERN
from bridge_tasks.models.content import ContentRef
from bridge_tasks.models.fields import (
    ContentType,
    Context,
    FileHash,
    FilePath,
    FileSize,
    Frozen,
    Hashing,
    JsonObject,
    Namespace,
    Text,
)
from bridge_tasks.models.stamping import Hashed

DEFAULT_NAMESPACE = "omninode.services.metadata"
"""The service's own default for stamps."""

_CONTENT_KINDS = frozenset({"inline", "file", "blob", "url"})
"""After `content`, pydantic names the kind in an error's path; what the caller wrote has no such level."""

_KINDS_ARE = "kind must be inline, file, blob or url"

_LONGEST_REASON = 300

MAX_BATCH_ITEMS = 1000
"""Ours: the service has no limit, a message should."""

MAX_WARM_CONTEXTS = 1000
"""As many as the cache holds by default."""


RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")]
"""A UUID as text."""


class TaskRequest(Frozen):
    """The base: knows how to take in the result of the step before."""

    @classmethod
    def following(cls, previous: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Merge the previous step's result into this step's arguments.

        Raises:
            InvalidRequest: this task has no use for it (chain it with `.si()`).
        """
        del previous, given
        raise InvalidRequest(
            "previous",
            "this task takes nothing from the step before: chain it with .si(), and give arguments by name",
        )

    def contents(self) -> Iterator[tuple[str, ContentRef]]:
        """Give all content that this request refers to, each after the path of what holds it (`items.3.`)."""
        content: ContentRef | None = getattr(self, "content", None)
        if content is not None:
            yield "", content


def _hash_of(previous: Any) -> dict[str, Any]:
    """The `Hashed` inside what a hash or an intelligence step returned."""
    if isinstance(previous, dict):
        carried = previous.get("hashed") or previous
        if isinstance(carried, dict) and "hash" in carried:
            return {key: carried[key] for key in Hashed.model_fields if key in carried}
    raise InvalidRequest("previous", "must be what a hash or an intelligence step returned")


class GenerateHash(TaskRequest):
    """Hash content. `namespace` is only echoed by the service."""

    content: ContentRef
    namespace: Namespace = "default"


class GetIntelligence(TaskRequest):
    """Ask OnexTree about a context; with `fallback`, an outage yields a degraded answer, not an error.

    `namespace` is whom the question is asked for: cached answers can be made void by it.
    """

    context: Context
    include_patterns: bool = True
    include_relationships: bool = True
    use_cache: bool = True
    fallback: bool = True
    namespace: Namespace | None = None
    hashed: Hashed | None = None

    @classmethod
    def following(cls, previous: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Carry the hash on to the step after."""
        return {"hashed": _hash_of(previous), **given}


class CreateStamp(TaskRequest):
    """Stamp a file whose hash is known.

    `content` is what the real service stamps (UTF-8 text up to its limit; other content is left out, and a
    service that needs it says so); a service of the guide's shape does without.
    """

    file_hash: FileHash
    file_path: FilePath
    file_size: FileSize
    stamp_data: JsonObject = Field(default_factory=dict)
    content_type: ContentType | None = None
    namespace: Namespace = DEFAULT_NAMESPACE
    content: ContentRef | None = None
    intelligence: JsonObject | None = None
    degraded: bool = False

    @classmethod
    def following(cls, previous: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Take the hash, and the intelligence where the step before was one."""
        hashed = _hash_of(previous)
        taken = {"file_hash": hashed["hash"], "file_size": hashed.get("file_size_bytes")}
        if "intelligence" in previous:
            taken["intelligence"] = {key: previous[key] for key in previous if key != "hashed"}
            taken["degraded"] = previous.get("degraded", False)
        return {**taken, **given}


class GetStamp(TaskRequest):
    """Look a stamp up by hash."""

    file_hash: FileHash
    namespace: Namespace | None = None

    @classmethod
    def following(cls, previous: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Take the hash."""
        return {"file_hash": _hash_of(previous)["hash"], **given}


class ValidateStamp(TaskRequest):
    """Check content against the stamps in it, or against the stamp the service holds for it."""

    content: ContentRef
    namespace: Namespace | None = None
    expected_hash: FileHash | None = None


class ValidateProtocol(TaskRequest):
    """Check content against a protocol."""

    content: ContentRef
    target_protocol: Annotated[Text, StringConstraints(min_length=1, max_length=64)] = "O.N.E.v0.1"
    validation_level: Annotated[Text, StringConstraints(min_length=1, max_length=64)] = "strict"
    namespace: Namespace = "default"


class BatchItem(Frozen):
    """One stamp of a batch; its own namespace and idempotency key win over those of the batch's job."""

    id: Annotated[Text, StringConstraints(min_length=1, max_length=255)] | None = None
    file_hash: FileHash
    file_path: FilePath
    file_size: FileSize
    stamp_data: JsonObject = Field(default_factory=dict)
    content_type: ContentType | None = None
    namespace: Namespace | None = None
    content: ContentRef | None = None
    idempotency_key: Annotated[str, StringConstraints(pattern=f"^{PATTERN.pattern}$")] | None = None


class BatchCreateStamps(TaskRequest):
    """Stamp up to 1000 files with one call of the service."""

    items: Annotated[list[BatchItem], Field(min_length=1, max_length=MAX_BATCH_ITEMS)]
    namespace: Namespace = DEFAULT_NAMESPACE

    @field_validator("items")
    @classmethod
    def _ids_are_unique(cls, items: list[BatchItem]) -> list[BatchItem]:
        ids = [item.id for item in items if item.id is not None]
        if len(set(ids)) < len(ids):
            raise ValueError("two items have the same id")
        return items

    def contents(self) -> Iterator[tuple[str, ContentRef]]:
        """Give the content of each item that has some."""
        for index, item in enumerate(self.items):
            if item.content is not None:
                yield f"items.{index}.", item.content


class QueryKnowledge(TaskRequest):
    """Query the knowledge graph."""

    query: Context
    max_depth: Annotated[int, Field(ge=1, le=100, strict=True)] = 3
    filters: JsonObject | None = None
    use_cache: bool = True


class NavigateTree(TaskRequest):
    """Walk the tree from a node."""

    start_node: Context
    direction: Annotated[str, StringConstraints(pattern="^(up|down|both)$")] = "both"
    max_nodes: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 100
    use_cache: bool = True


class StampFile(TaskRequest):
    """The whole job in one message: hash and intelligence, then the stamp."""

    content: ContentRef
    file_path: FilePath
    context: Context
    namespace: Namespace = DEFAULT_NAMESPACE
    stamp_data: JsonObject = Field(default_factory=dict)
    content_type: ContentType | None = None
    hashing: Hashing | None = None
    """None: the service's."""

    @field_validator("stamp_data")
    @classmethod
    def _reserved_keys_are_free(cls, stamp_data: dict[str, Any]) -> dict[str, Any]:
        taken = {"intelligence", "context"} & set(stamp_data)
        if taken:
            raise ValueError(f"must not hold {', '.join(sorted(taken))}: the job writes it")
        return stamp_data


class StampChunk(TaskRequest):
    """Stamp one chunk of the files of a bulk run; what they are is in the run's record."""

    run: RunId
    number: Annotated[int, Field(ge=0, le=10_000_000, strict=True)]


class WarmCache(TaskRequest):
    """Ask for the intelligence of contexts that will be asked about often."""

    contexts: Annotated[list[Context], Field(max_length=MAX_WARM_CONTEXTS)]


class CheckHealth(TaskRequest):
    """Ask both services how they are."""


def refusal(error: ValidationError, *prefix: str) -> InvalidRequest:
    """Turn pydantic's error into ours: the first offending field and why, never its value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ("", *prefix, *first["loc"])
    where = [str(part) for above, part in pairwise(path) if above != "content" or part not in _CONTENT_KINDS]
    # Pydantic quotes a tag that it does not know; what else may quote the input is kept short and printable.
    unknown_kind = first["type"].startswith("union_tag_")
    reason = _KINDS_ARE if unknown_kind else first["msg"].removeprefix("Value error, ")
    printable = "".join(char if char.isprintable() else "?" for char in reason[:_LONGEST_REASON])
    return InvalidRequest(".".join(where)[:_LONGEST_REASON] or "request", printable)
