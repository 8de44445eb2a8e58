"""A table of bad inputs, over every task and canvas builder: refused where they are made, and nothing is sent.

Each row is a call, the field that it must be refused for and words of the reason. Every bad value holds MARK where
it can hold anything: no reason may repeat it.
"""

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge_tasks import workflows
from bridge_tasks.bridge import Bridge
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.messages import HEADER
from bridge_tasks.models.content import InlineContent
from bridge_tasks.tasks import (
    batch_create_stamps,
    check_health,
    create_stamp,
    generate_hash,
    get_intelligence,
    get_stamp,
    navigate_tree,
    query_knowledge,
    stamp_file,
    validate_protocol,
    validate_stamp,
)
from tests.workers import QUEUES

MARK = "hunter2"
HASH = "ab" * 32
NAN, INFINITY = float("nan"), float("inf")
INLINE = {"kind": "inline", "data": "aGk="}
LIMIT = 500 * 1024 * 1024
STAMP = {"file_hash": HASH, "file_path": "/a.md", "file_size": 2}
HASHED = {"hash": HASH, "file_size_bytes": 2}
CRLF = f"{MARK}\r\nX-Evil: 1"


@dataclass(frozen=True, slots=True)
class Places:
    """Files in and beside the allowed root."""

    root: Path
    outside: Path


Call = Callable[[Places], object]
Row = tuple[str, Call, str, str]


@pytest.fixture(scope="session")
def places(documents: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    outside = tmp_path_factory.mktemp("outside").resolve()
    (outside / "secret.txt").write_text(MARK)
    traps = documents / "traps"
    traps.mkdir()
    (traps / "file-link").symlink_to(outside / "secret.txt")
    (traps / "directory-link").symlink_to(outside)
    (traps / "loop").symlink_to(traps / "loop")
    os.mkfifo(traps / "pipe")
    (traps / "huge").touch()
    os.truncate(traps / "huge", LIMIT + 1)
    Path(os.fsdecode(os.fsencode(traps) + b"/not-\xff-utf8")).write_text("x")
    (traps / "new\nline").write_text("x")
    return Places(traps, outside)


@pytest.fixture(autouse=True)
def queues(idle: redis.Redis) -> redis.Redis:
    """Redis, where nothing may have been written when a test of this module is over."""
    idle.flushdb()
    return idle


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"deeper": value}
    return value


def cycle() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


def file(path: object, **more: Any) -> dict[str, Any]:
    return {"content": {"kind": "file", "path": os.fspath(path) if isinstance(path, Path) else path, **more}}


def url(address: str) -> dict[str, Any]:
    return {"content": {"kind": "url", "url": address}}


def batch(*items: object, **more: Any) -> dict[str, Any]:
    return {"items": list(items), **more}


def in_namespace(namespace: object) -> Call:
    return lambda _: generate_hash.delay(content=INLINE, namespace=namespace)


def with_header(cid: object) -> Call:
    return lambda _: generate_hash.apply_async(kwargs={"content": INLINE}, headers={HEADER: cid})


def with_stamp_data(stamp_data: object) -> Call:
    return lambda _: create_stamp.delay(**STAMP, stamp_data=stamp_data)


def built(source: Any, **given: Any) -> object:
    return workflows.stamp_file(source, **{"context": "c", **given})


CONTENT: list[Row] = [
    ("no content", lambda _: generate_hash.delay(), "content", "required"),
    ("content is null", lambda _: generate_hash.delay(content=None), "content", "valid dictionary"),
    ("content is text", lambda _: generate_hash.delay(content=MARK), "content", "valid dictionary"),
    ("content is a list", lambda _: generate_hash.delay(content=[MARK]), "content", "valid dictionary"),
    ("content is bytes", lambda _: generate_hash.delay(content=b"\xff\xfe"), "content", "JSON"),
    ("content is a set of bytes", lambda _: generate_hash.delay(content={b"\xff"}), "content", "JSON"),
    ("content is an object", lambda _: generate_hash.delay(content=object()), "content", "plain JSON"),
    ("content of no kind", lambda _: generate_hash.delay(content={}), "content", "kind must be inline"),
    (
        "content of a strange kind",
        lambda _: generate_hash.delay(content={"kind": MARK}),
        "content",
        "kind must be inline",
    ),
    (
        "an unknown key in content",
        lambda _: generate_hash.delay(content={**INLINE, "more": MARK}),
        "content.more",
        "not permitted",
    ),
    (
        "not base64",
        lambda _: generate_hash.delay(content={"kind": "inline", "data": MARK}),
        "content.data",
        "base64",
    ),
    (
        "base64 with a line break",
        lambda _: generate_hash.delay(content={"kind": "inline", "data": "aGk=\n"}),
        "content.data",
        "base64",
    ),
    (
        "inline content over 64 KiB",
        lambda _: generate_hash.delay(content={"kind": "inline", "data": "AAAA" * 22000}),
        "content.data",
        "inline content ends at 65536",
    ),
    ("a relative path", lambda _: generate_hash.delay(**file("guide.md")), "content.path", "absolute"),
    ("an empty path", lambda _: generate_hash.delay(**file("")), "content.path", "at least 1"),
    ("a path that is a number", lambda _: generate_hash.delay(**file(7)), "content.path", "string"),
    ("a path of 5000 characters", lambda _: generate_hash.delay(**file("/" + "a" * 4999)), "content.path", "4096"),
    ("NUL in a path", lambda at: generate_hash.delay(**file(f"{at.root}/a\0{MARK}")), "content.path", "control"),
    (
        "a line break in a path",
        lambda at: generate_hash.delay(**file(at.root / "new\nline")),
        "content.path",
        "control",
    ),
    (
        "a path that is not UTF-8",
        lambda at: generate_hash.delay(**file(f"{at.root}/not-\udcff-utf8")),
        "content.path",
        "UTF-8",
    ),
    (
        "a path that climbs out",
        lambda at: generate_hash.delay(**file(f"{at.root}/../../../etc/passwd")),
        "content.path",
        "outside the allowed roots",
    ),
    ("a file elsewhere", lambda _: generate_hash.delay(**file("/etc/passwd")), "content.path", "outside"),
    (
        "a directory whose name begins like a root's",
        lambda at: generate_hash.delay(**file(f"{at.root.parent}-{MARK}/a")),
        "content.path",
        "outside",
    ),
    (
        "a link to a file outside",
        lambda at: generate_hash.delay(**file(at.root / "file-link")),
        "content.path",
        "outside",
    ),
    (
        "a link to a directory outside",
        lambda at: generate_hash.delay(**file(at.root / "directory-link" / "secret.txt")),
        "content.path",
        "outside",
    ),
    (
        "a link to itself",
        lambda at: generate_hash.delay(**file(at.root / "loop")),
        "content.path",
        "cannot be opened",
    ),
    (
        "a file that is missing",
        lambda at: generate_hash.delay(**file(at.root / MARK)),
        "content.path",
        "not exist",
    ),
    (
        "a file below a file",
        lambda at: generate_hash.delay(**file(at.root / "huge" / MARK)),
        "content.path",
        "does not exist",
    ),
    ("a directory", lambda at: generate_hash.delay(**file(at.root)), "content.path", "not a regular file"),
    (
        "a named pipe",
        lambda at: generate_hash.delay(**file(at.root / "pipe")),
        "content.path",
        "not a regular file",
    ),
    (
        "a file over the limit",
        lambda at: generate_hash.delay(**file(at.root / "huge")),
        "content.path",
        str(LIMIT),
    ),
    (
        "a size over the limit",
        lambda at: generate_hash.delay(**file(at.root / "huge", size=LIMIT + 1)),
        "content.size",
        "at most",
    ),
    (
        "a size below zero",
        lambda at: generate_hash.delay(**file(at.root / "a", size=-1)),
        "content.size",
        "greater",
    ),
    (
        "a size that is text",
        lambda at: generate_hash.delay(**file(at.root / "a", size="7")),
        "content.size",
        "integer",
    ),
    (
        "a size that is true",
        lambda at: generate_hash.delay(**file(at.root / "a", size=True)),
        "content.size",
        "integer",
    ),
    (
        "a size that is NaN",
        lambda at: generate_hash.delay(**file(at.root / "a", size=NAN)),
        "content.size",
        "integer",
    ),
    (
        "a blob's key that is none",
        lambda _: generate_hash.delay(content={"kind": "blob", "key": f"{MARK}:*", "size": 1}),
        "content.key",
        "match pattern",
    ),
    (
        "a blob over the limit",
        lambda _: generate_hash.delay(content={"kind": "blob", "key": "0" * 32, "size": 16 * 1024 * 1024 + 1}),
        "content.size",
        "exceeds",
    ),
    (
        "an ftp URL",
        lambda _: generate_hash.delay(**url(f"ftp://127.0.0.1/{MARK}")),
        "content.url",
        "http or https",
    ),
    ("a file URL", lambda _: generate_hash.delay(**url("file:///etc/passwd")), "content.url", "http or https"),
    (
        "a URL without a host",
        lambda _: generate_hash.delay(**url(f"http:///{MARK}")),
        "content.url",
        "with a host",
    ),
    (
        "credentials in a URL",
        lambda _: generate_hash.delay(**url(f"http://user:{MARK}@127.0.0.1/")),
        "content.url",
        "credentials",
    ),
    (
        "a host not allowed",
        lambda _: generate_hash.delay(**url(f"http://{MARK}.example/")),
        "content.url",
        "allowed host",
    ),
    (
        "an allowed host as a prefix",
        lambda _: generate_hash.delay(**url("http://127.0.0.1.example/")),
        "content.url",
        "allowed host",
    ),
    ("a port that is none", lambda _: generate_hash.delay(**url("http://127.0.0.1:99999/")), "content.url", "URL"),
    ("a space in a URL", lambda _: generate_hash.delay(**url("http://127.0.0.1/a b")), "content.url", "spaces"),
    (
        "a line break in a URL",
        lambda _: generate_hash.delay(**url(f"http://127.0.0.1/\r\nX-Evil: {MARK}")),
        "content.url",
        "control",
    ),
    (
        "a URL of 3000 characters",
        lambda _: generate_hash.delay(**url("http://a/" + "x" * 3000)),
        "content.url",
        "2048",
    ),
]

ARGUMENTS: list[Row] = [
    ("content by position", lambda _: generate_hash.delay(INLINE), "previous", "takes nothing"),
    ("two arguments by position", lambda _: create_stamp.delay(HASH, "/a.md"), "arguments", "by name"),
    (
        "a step after nothing that hashes",
        lambda _: create_stamp.delay({"x": MARK}),
        "previous",
        "must be what a hash",
    ),
    ("an unknown argument", lambda _: generate_hash.delay(content=INLINE, depth=MARK), "depth", "not permitted"),
    ("arguments for a task without", lambda _: check_health.delay(service=MARK), "service", "not permitted"),
    ("a previous result that is an object", lambda _: get_stamp.delay(object()), "previous", "plain JSON"),
    ("keywords that are a list", lambda _: generate_hash.apply_async(kwargs=[MARK]), "arguments", "by name"),  # type: ignore[arg-type] # the point
]

NAMESPACES: list[Row] = [
    (f"namespace: {what}", in_namespace(bad), "namespace", why)
    for what, bad, why in (
        ("empty", "", "match pattern"),
        ("null", None, "string"),
        ("a number", 7, "string"),
        ("with CRLF", CRLF, "match pattern"),
        ("ending in a line feed", f"{MARK}\n", "match pattern"),
        ("climbing", f"../{MARK}", "match pattern"),
        ("too long", "n" * 256, "match pattern"),
        ("not ASCII", "nåmn", "match pattern"),
        ("NUL", f"{MARK}\0", "match pattern"),
    )
]

CORRELATION: list[Row] = [
    (
        f"correlation id in a header: {what}",
        with_header(bad),
        "correlation_id",
        "1 to 128",
    )
    for what, bad in (
        ("CRLF", CRLF),
        ("ending in a line feed", f"{MARK}\n"),
        ("empty", ""),
        ("a number", 7),
        ("bytes", b"id"),
        ("too long", "a" * 129),
        ("ANSI escapes", f"\x1b[31m{MARK}"),
        ("not ASCII", "idé"),
        ("a space", f"a {MARK}"),
    )
]

STAMPS: list[Row] = [
    ("no hash", lambda _: create_stamp.delay(file_path="/a", file_size=1), "file_hash", "required"),
    (
        "a hash of 63 digits",
        lambda _: create_stamp.delay(**STAMP | {"file_hash": "a" * 63}),
        "file_hash",
        "pattern",
    ),
    (
        "a hash that is not hex",
        lambda _: create_stamp.delay(**STAMP | {"file_hash": "g" * 64}),
        "file_hash",
        "pattern",
    ),
    ("a hash and a line feed", lambda _: get_stamp.delay(file_hash=f"{HASH}\n"), "file_hash", "pattern"),
    ("a hash that is a number", lambda _: get_stamp.delay(file_hash=7), "file_hash", "string"),
    (
        "an expected hash that is none",
        lambda _: validate_stamp.delay(content=INLINE, expected_hash=f"blake3:{HASH}"),
        "expected_hash",
        "pattern",
    ),
    ("a label that climbs", lambda _: create_stamp.delay(**STAMP | {"file_path": "a/../b"}), "file_path", "climb"),
    (
        "a label that climbs backwards",
        lambda _: create_stamp.delay(**STAMP | {"file_path": "..\\b"}),
        "file_path",
        "climb",
    ),
    ("an empty label", lambda _: create_stamp.delay(**STAMP | {"file_path": ""}), "file_path", "at least 1"),
    (
        "a label with escapes",
        lambda _: create_stamp.delay(**STAMP | {"file_path": "\x1b[2J"}),
        "file_path",
        "control",
    ),
    (
        "a file size of minus one",
        lambda _: create_stamp.delay(**STAMP | {"file_size": -1}),
        "file_size",
        "greater",
    ),
    ("a fractional file size", lambda _: create_stamp.delay(**STAMP | {"file_size": 1.5}), "file_size", "integer"),
    (
        "a file size beyond 2**53",
        lambda _: create_stamp.delay(**STAMP | {"file_size": 2**60}),
        "file_size",
        "less",
    ),
    (
        "an infinite file size",
        lambda _: create_stamp.delay(**STAMP | {"file_size": INFINITY}),
        "file_size",
        "integer",
    ),
    (
        "a content type of one word",
        lambda _: create_stamp.delay(**STAMP, content_type=MARK),
        "content_type",
        "pattern",
    ),
    (
        "a content type with CRLF",
        lambda _: create_stamp.delay(**STAMP, content_type=f"text/plain\r\n{MARK}"),
        "content_type",
        "pattern",
    ),
    ("degraded perhaps", lambda _: create_stamp.delay(**STAMP, degraded=MARK), "degraded", "boolean"),
    (
        "intelligence that is a list",
        lambda _: create_stamp.delay(**STAMP, intelligence=[1]),
        "intelligence",
        "object",
    ),
]

STAMP_DATA: list[Row] = [
    (f"stamp_data: {what}", with_stamp_data(bad), "stamp_data", why)
    for what, bad, why in (
        ("NaN", {"score": NAN}, "NaN or infinity"),
        ("minus infinity, deep inside", {"a": [{"b": -INFINITY}]}, "NaN or infinity"),
        ("33 levels deep", nested(33), "deeper than 32"),
        ("500 levels deep", nested(500), "deep"),
        ("a cycle", cycle(), "cycles"),
        ("a list", [MARK], "JSON object"),
        ("over 256 KiB", {"text": MARK * 50_000}, "at most 262144"),
        ("an object", {"it": object()}, "plain JSON"),
        ("bytes that are no text", {"raw": b"\xff"}, "JSON"),
        ("an integer of 70 bits", {"id": 2**70}, "cannot carry"),
        ("a lone surrogate", {"name": "\ud800"}, "JSON"),
    )
]

QUESTIONS: list[Row] = [
    ("no context", lambda _: get_intelligence.delay(), "context", "required"),
    ("an empty context", lambda _: get_intelligence.delay(context=""), "context", "at least 1"),
    ("a context of 2001 characters", lambda _: get_intelligence.delay(context="c" * 2001), "context", "2000"),
    ("a context with CRLF", lambda _: get_intelligence.delay(context=CRLF), "context", "control"),
    (
        "a context with a line separator",
        lambda _: get_intelligence.delay(context="a\u2028b"),
        "context",
        "control",
    ),
    ("a context that is a list", lambda _: get_intelligence.delay(context=[MARK]), "context", "string"),
    ("fallback perhaps", lambda _: get_intelligence.delay(context="c", fallback=MARK), "fallback", "boolean"),
    (
        "a hash that took NaN milliseconds",
        lambda _: get_intelligence.delay(context="c", hashed={**HASHED, "execution_time_ms": NAN}),
        "hashed.execution_time_ms",
        "finite",
    ),
    (
        "a carried hash that is none",
        lambda _: get_intelligence.delay(context="c", hashed={**HASHED, "hash": MARK}),
        "hashed.hash",
        "pattern",
    ),
    ("a depth of zero", lambda _: query_knowledge.delay(query="q", max_depth=0), "max_depth", "greater"),
    ("a depth of 101", lambda _: query_knowledge.delay(query="q", max_depth=101), "max_depth", "less"),
    ("a depth that is text", lambda _: query_knowledge.delay(query="q", max_depth="3"), "max_depth", "integer"),
    ("a depth that is true", lambda _: query_knowledge.delay(query="q", max_depth=True), "max_depth", "integer"),
    (
        "filters with infinity",
        lambda _: query_knowledge.delay(query="q", filters={"a": INFINITY}),
        "filters",
        "NaN",
    ),
    ("filters that are a list", lambda _: query_knowledge.delay(query="q", filters=[]), "filters", "JSON object"),
    ("sideways", lambda _: navigate_tree.delay(start_node="n", direction=MARK), "direction", "pattern"),
    (
        "up and a line feed",
        lambda _: navigate_tree.delay(start_node="n", direction="up\n"),
        "direction",
        "pattern",
    ),
    (
        "ten thousand and one nodes",
        lambda _: navigate_tree.delay(start_node="n", max_nodes=10_001),
        "max_nodes",
        "less",
    ),
    ("a node with NUL", lambda _: navigate_tree.delay(start_node="n\0"), "start_node", "control"),
    (
        "an empty protocol",
        lambda _: validate_protocol.delay(content=INLINE, target_protocol=""),
        "target_protocol",
        "at least 1",
    ),
    (
        "a validation level with CRLF",
        lambda _: validate_protocol.delay(content=INLINE, validation_level=CRLF),
        "validation_level",
        "control",
    ),
]

BATCHES: list[Row] = [
    ("a batch of nothing", lambda _: batch_create_stamps.delay(items=[]), "items", "at least 1"),
    ("a batch that is a dictionary", lambda _: batch_create_stamps.delay(items=STAMP), "items", "list"),
    ("a batch of 1001", lambda _: batch_create_stamps.delay(items=[STAMP] * 1001), "items", "1000"),
    ("an item that is text", lambda _: batch_create_stamps.delay(**batch(STAMP, MARK)), "items.1", "dictionary"),
    (
        "an item with a wrong hash",
        lambda _: batch_create_stamps.delay(**batch(STAMP, STAMP, {**STAMP, "file_hash": MARK})),
        "items.2.file_hash",
        "pattern",
    ),
    (
        "an item with an unknown field",
        lambda _: batch_create_stamps.delay(**batch({**STAMP, "owner": MARK})),
        "items.0.owner",
        "not permitted",
    ),
    (
        "two items with one id",
        lambda _: batch_create_stamps.delay(**batch({**STAMP, "id": MARK}, {**STAMP, "id": MARK})),
        "items",
        "same id",
    ),
    (
        "an item whose file is elsewhere",
        lambda _: batch_create_stamps.delay(**batch(STAMP, {**STAMP, **file("/etc/passwd")})),
        "items.1.content.path",
        "outside",
    ),
    (
        "a batch's namespace with CRLF",
        lambda _: batch_create_stamps.delay(**batch(STAMP, namespace=CRLF)),
        "namespace",
        "pattern",
    ),
]

CANVASES: list[Row] = [
    (
        "stamp_data that takes the job's own key",
        lambda _: stamp_file.delay(content=INLINE, file_path="/a", context="c", stamp_data={"intelligence": 1}),
        "stamp_data",
        "must not hold intelligence",
    ),
    ("canvas: a file elsewhere", lambda at: built(at.outside / "secret.txt"), "content.path", "outside"),
    ("canvas: a missing file", lambda at: built(at.root / MARK), "content.path", "does not exist"),
    ("canvas: a link out", lambda at: built(at.root / "file-link"), "content.path", "outside"),
    ("canvas: a link to itself", lambda at: built(at.root / "loop"), "content.path", "cannot be opened"),
    ("canvas: a named pipe", lambda at: built(at.root / "pipe"), "content.path", "not a regular file"),
    ("canvas: a file over the limit", lambda at: built(at.root / "huge"), "content.size", "at most"),
    ("canvas: NUL in a path", lambda at: built(f"{at.root}/\0"), "content.path", "cannot be opened"),
    (
        "canvas: a name that is not UTF-8",
        lambda at: built(os.fsdecode(os.fsencode(at.root) + b"/not-\xff-utf8")),
        "content.path",
        "UTF-8",
    ),
    ("canvas: a path of bytes", lambda at: built(os.fsencode(at.root)), "content", "dictionary"),
    ("canvas: no source", lambda _: built(None), "content", "dictionary"),
    ("canvas: an empty context", lambda _: built(InlineContent(data="aGk="), context=""), "context", "at least 1"),
    (
        "canvas: CRLF in a namespace",
        lambda _: built(InlineContent(data="aGk="), namespace=CRLF),
        "namespace",
        "pattern",
    ),
    (
        "canvas: CRLF in a correlation id",
        lambda _: built(InlineContent(data="aGk="), correlation_id=CRLF),
        "correlation_id",
        "1 to 128",
    ),
    (
        "canvas: a correlation id that is a number",
        lambda _: built(InlineContent(data="aGk="), correlation_id=7),
        "correlation_id",
        "1 to 128",
    ),
    (
        "canvas: NaN in stamp_data",
        lambda _: built(InlineContent(data="aGk="), stamp_data={"a": NAN}),
        "stamp_data",
        "NaN",
    ),
    (
        "canvas: a label that climbs",
        lambda _: built(InlineContent(data="aGk="), file_path=f"../{MARK}"),
        "file_path",
        "climb",
    ),
    (
        "one message: an unknown field",
        lambda _: workflows.stamp_file_job(InlineContent(data="aGk="), context="c", owner=MARK),
        "owner",
        "not permitted",
    ),
    (
        "one message: CRLF in a correlation id",
        lambda _: workflows.stamp_file_job(InlineContent(data="aGk="), context="c", correlation_id=CRLF),
        "correlation_id",
        "1 to 128",
    ),
    (
        "submitting: CRLF in a correlation id",
        lambda _: Bridge().submit(check_health.s(), correlation_id=CRLF),
        "correlation_id",
        "1 to 128",
    ),
    (
        "submitting: a chain whose file is elsewhere",
        lambda _: Bridge().submit(generate_hash.s(**file("/etc/passwd")) | get_stamp.s()),
        "content.path",
        "outside",
    ),
]


ROWS = [
    *CONTENT,
    *ARGUMENTS,
    *NAMESPACES,
    *CORRELATION,
    *STAMPS,
    *STAMP_DATA,
    *QUESTIONS,
    *BATCHES,
    *CANVASES,
]


@pytest.mark.parametrize(("call", "field", "words"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_bad_input_is_refused_with_field_and_reason_and_nothing_is_sent(
    call: Call, field: str, words: str, places: Places, queues: redis.Redis
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        call(places)

    assert refused.value.field == field
    assert words in refused.value.reason
    assert MARK not in str(refused.value)
    assert refused.value.reason.isprintable()
    assert len(refused.value.reason) <= 300
    assert queues.keys() == []


def test_the_table_is_as_long_as_promised_and_says_each_thing_once() -> None:
    assert len({row[0] for row in ROWS}) == len(ROWS) >= 60


def test_good_input_is_sent_so_the_queues_above_are_the_right_ones_to_watch(
    documents: Path, queues: redis.Redis
) -> None:
    generate_hash.delay(**file(documents / "guide.md"))
    get_intelligence.delay(context="login")
    batch_create_stamps.delay(items=[STAMP])

    assert [queues.llen(queue) for queue in QUEUES] == [1, 1, 1]


@pytest.mark.parametrize("good", ["run-7", "A" * 128, "00-4bf92f3577b34da6-01", "a@b/c=d+e:f._-", uuid.uuid4()])
def test_a_correlation_id_of_safe_characters_is_taken(good: Any, documents: Path) -> None:
    chain = workflows.stamp_file(documents / "guide.md", context="c", correlation_id=good)
    assert {step.options["headers"][HEADER] for step in chain.tasks} == {str(good)}
