"""Messages that no producer of ours would send, as they lie in a queue: made by hand, byte by byte."""

import base64
import json
import lzma
import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.tasks.sending import inline

SECRET = "swordfish-7731"
ESCAPES = "\x1b]0;owned\x07\x1b[31m\r\nERROR forged line"
BOMB_BYTES = 128 * 1024 * 1024
DEEP = 100_000
STAMP = {"file_hash": "ab" * 32, "file_path": "/a.md", "file_size": 2}

Raw = Callable[[str], bytes]
"""Makes the bytes of a message, given the id that it claims."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """A row: what is wrong, and what becomes of it.

    `field`: it is refused at the door, for this part of it. `error`: it is let in, and the task ends in this.
    Neither: it is run, does no harm and succeeds.
    """

    what: str
    raw: Raw
    field: str | None = None
    error: str | None = None


class Runs:
    """A pickle that runs something where it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, (f"executed {SECRET}",))


def message(name: str, **changes: Any) -> dict[str, Any]:
    """A message as Celery writes one, but for changes.

    Args:
        name: its id.
        changes: `task`, `keywords`, `arguments`, `embed`, or `body` instead of these; and more of the `headers`
            and `properties`.
    """
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None} | changes.get("embed", {})
    keywords = changes.get("keywords", {"content": inline(SECRET)})
    body = changes.get("body", json.dumps([changes.get("arguments", []), keywords, embed]))
    task = changes.get("task", "bridge.generate_hash")
    return {
        "body": base64.b64encode(body if isinstance(body, bytes) else body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": name, "root_id": name, "parent_id": None, "retries": 0}
        | changes.get("headers", {}),
        "properties": {
            "correlation_id": name,
            "reply_to": str(uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "bridge.metadata"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        }
        | changes.get("properties", {}),
    }


def _with(**changes: Any) -> Raw:
    return lambda name: json.dumps(message(name, **changes)).encode()


def _header(name: str, value: Any) -> Raw:
    return _with(headers={name: value})


def _property(name: str, value: Any) -> Raw:
    return _with(properties={name: value})


def _part(name: str, value: Any) -> Raw:
    return lambda claimed: json.dumps(message(claimed) | {name: value}).encode()


def _without(name: str) -> Raw:
    """Leave a header out."""

    def raw(claimed: str) -> bytes:
        made = message(claimed)
        del made["headers"][name]
        return json.dumps(made).encode()

    return raw


def _bytes(raw: bytes) -> Raw:
    return lambda _: raw


def _replaced(old: str, new: str) -> Raw:
    """Change the text of a message after it was made: what no JSON library would write."""
    return lambda name: json.dumps(message(name)).replace(old, new).encode()


def _bomb(kind: str, pack: Callable[[bytes], bytes]) -> Raw:
    body = pack(b"[" + b" " * BOMB_BYTES)
    return _with(body=body, headers={"compression": kind})


def lzma_quickly(raw: bytes) -> bytes:
    return lzma.compress(raw, preset=0)


def _content(**content: Any) -> Raw:
    return _with(keywords={"content": content})


def _step(**signature: Any) -> Raw:
    return _with(embed={"callbacks": [signature]})


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


TABLE = (
    # No message at all.
    Hostile("bytes that are no text", _bytes(b"\xff\xfe\x00garbage"), "message"),
    Hostile("a request of HTTP", _bytes(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "message"),
    Hostile("commands of Redis", _bytes(b"*1\r\n$8\r\nFLUSHALL\r\n"), "message"),
    Hostile("nothing", _bytes(b""), "message"),
    Hostile("a number", _bytes(b"7"), "message"),
    Hostile("a list", _bytes(b"[1, 2]"), "message"),
    Hostile("null", _bytes(b"null"), "message"),
    Hostile("a pickle in place of a message", _bytes(pickle.dumps(Runs())), "message"),
    Hostile("brackets, a hundred thousand deep", _bytes(_nested(DEEP).encode()), "message"),
    Hostile("seventeen megabytes", _bytes(b'{"body": "' + b"x" * (17 << 20) + b'"}'), "message"),
    Hostile("NaN", _replaced('"priority": 0', '"priority": NaN'), "message"),
    Hostile("half of a surrogate pair", _replaced('"lang": "py"', '"lang": "\\ud800"'), "message"),
    Hostile("a marked value that is none", _header("note", {"__type__": "datetime", "__value__": "x"}), "message"),
    Hostile("a mark that nobody knows", _header("note", {"__type__": "os", "__value__": "x"}), "message"),
    # The envelope.
    Hostile("an object that is empty", _bytes(b"{}"), "headers"),
    Hostile("properties that are a list", _part("properties", []), "properties"),
    Hostile("headers that are a text", _part("headers", SECRET), "headers"),
    Hostile("headers that are null", _part("headers", None), "headers"),
    Hostile("a body that is an object", _part("body", {"a": 1}), "body"),
    Hostile(
        "half a word where it was sent to",
        _property("delivery_info", {"routing_key": "bridge.metadata"}),
        "properties.delivery_info",
    ),
    Hostile("no word where it was sent to", _property("delivery_info", None), "properties.delivery_info"),
    Hostile("a delivery tag that is an object", _property("delivery_tag", {}), "properties.delivery_tag"),
    Hostile("an encoding that kombu lacks", _property("body_encoding", "uu"), "properties.body_encoding"),
    Hostile("a priority that is a text", _property("priority", "high"), "properties.priority"),
    Hostile("an answer that goes to a list", _property("reply_to", ["x"]), "properties.reply_to"),
    Hostile(
        "a way back into a key of the ledger",
        _property("delivery_info", {"exchange": "", "routing_key": "bridge:dead"}),
        "properties.delivery_info",
    ),
    # What it says that it is.
    Hostile("a pickle in a message", lambda n: _pickled(n), "content-type"),  # noqa: PLW0108 - defined below
    Hostile("YAML that runs something", _part("content-type", "application/x-yaml"), "content-type"),
    Hostile("msgpack", _part("content-type", "application/x-msgpack"), "content-type"),
    Hostile("a content type that is a number", _part("content-type", 7), "content-type"),
    Hostile("UTF-16", _part("content-encoding", "utf-16"), "content-encoding"),
    Hostile("a bomb of zlib", _bomb("application/x-gzip", zlib.compress), "headers.compression"),
    Hostile("a bomb of lzma", _bomb("application/x-lzma", lzma_quickly), "headers.compression"),
    Hostile("a compression that is a list", _header("compression", ["gzip"]), "headers.compression"),
    # Headers.
    Hostile("no task", _without("task"), "headers.task"),
    Hostile("a task that is a number", _with(task=7), "headers.task"),
    Hostile("a task that is an object", _with(task={"$ne": 1}), "headers.task"),
    Hostile("escapes and lines in a task's name", _with(task=f"bridge.{ESCAPES}"), "headers.task"),
    Hostile("a task of somebody else", _with(task="os.system", arguments=["touch /tmp/owned"]), "headers.task"),
    Hostile("a task of ours that is none", _with(task=f"bridge.{SECRET}"), "headers.task"),
    Hostile("a message of Celery's first protocol", lambda n: _protocol_1(n), "headers.task"),  # noqa: PLW0108
    Hostile("no id", _without("id"), "headers.id"),
    Hostile("an id that is a list", _header("id", ["a"]), "headers.id"),
    Hostile("lines in an id", _header("id", f"a{ESCAPES}"), "headers.id"),
    Hostile("a megabyte of id", _header("id", "a" * (1 << 20)), "headers.id"),
    Hostile("retries that are a text", _header("retries", "many"), "headers.retries"),
    Hostile("retries below nothing", _header("retries", -7), "headers.retries"),
    Hostile("retries that are huge", _header("retries", 10**40), "headers.retries"),
    Hostile("a time limit that is a text", _header("timelimit", "soon"), "headers.timelimit"),
    Hostile("a time limit that is negative", _header("timelimit", [-1, -1]), "headers.timelimit"),
    Hostile("three time limits", _header("timelimit", [1, 2, 3]), "headers.timelimit"),
    Hostile("a time that is none", _header("eta", "tomorrow"), "headers.eta"),
    Hostile("a time that is an object", _header("eta", {"at": 1}), "headers.eta"),
    Hostile("the end of all time", _header("eta", "9999-12-31T23:59:59-12:00"), "headers.eta"),
    Hostile("an end that is a list", _header("expires", [1]), "headers.expires"),
    Hostile("a group that is an object", _header("group", {"a": 1}), "headers.group"),
    Hostile("a description that is an object", _header("kwargsrepr", {"cid": "x"}), "headers.kwargsrepr"),
    Hostile("a description of a megabyte", _header("argsrepr", "x" * (1 << 20)), "headers.argsrepr"),
    Hostile("an answer to be ignored, perhaps", _header("ignore_result", "yes"), "headers.ignore_result"),
    Hostile("stamps that are a text", _header("stamped_headers", "x"), "headers.stamped_headers"),
    Hostile("CRLF in a correlation id", _header("x-correlation-id", "a\r\nX-Evil: 1"), "headers.x-correlation-id"),
    Hostile("escapes in a correlation id", _header("x-correlation-id", ESCAPES), "headers.x-correlation-id"),
    Hostile("a correlation id that is a list", _header("x-correlation-id", ["a"]), "headers.x-correlation-id"),
    Hostile("a job that is an object", _header("x-bridge-job", {"a": 1}), "headers.x-bridge-job"),
    Hostile("a job with a space", _header("x-bridge-job", "a b"), "headers.x-bridge-job"),
    Hostile("a part that is a number", _header("x-bridge-part", 7), "headers.x-bridge-part"),
    Hostile("a file of no run", _header("x-bridge-item", "a|b|c"), "headers.x-bridge-item"),
    Hostile("waits that are a text", _header("x-bridge-waits", "x"), "headers.x-bridge-waits"),
    Hostile("a subject that is a list", _header("x-bridge-subject", ["a"]), "headers.x-bridge-subject"),
    # Bodies.
    Hostile("a body that is no base64", _part("body", "%%%"), "body"),
    Hostile("a body that is no JSON", _with(body="{"), "body"),
    Hostile("a body that is a number", _with(body="7"), "body"),
    Hostile("a body of two parts", _with(body="[[], {}]"), "body"),
    Hostile("a body that is too deep", _with(body=_nested(DEEP)), "body"),
    Hostile("a body with NaN", _with(body='[[], {"content": NaN}, {}]'), "body"),
    Hostile("arguments that are an object", _with(body="[{}, {}, {}]"), "body.arguments"),
    Hostile("keywords that are a list", _with(keywords=[]), "body.keywords"),
    Hostile("steps to come that are a text", _with(body='[[], {}, "x"]'), "body.embed"),
    Hostile("a chain that is a text", _with(embed={"chain": "x"}), "body.chain"),
    Hostile("callbacks that are numbers", _with(embed={"callbacks": [1]}), "body.callbacks"),
    Hostile("a callback without a task", _step(args=[]), "body.callbacks"),
    Hostile("a callback whose options are a list", _step(task="bridge.get_stamp", options=[]), "body.callbacks"),
    Hostile("an error's callback that is null", _with(embed={"errbacks": [None]}), "body.errbacks"),
    Hostile("a chord that is a list", _with(embed={"chord": []}), "body.chord"),
    # What is a message, and asks for what may not be.
    Hostile("arguments by place", _with(arguments=[1, 2, 3]), error="InvalidRequest"),
    Hostile("a keyword that is none", _with(keywords={"__class__": {}}), error="InvalidRequest"),
    Hostile(
        "a marked value", _with(keywords={"content": {"__type__": "x", "__value__": 1}}), error="InvalidRequest"
    ),
    Hostile("a file outside", _content(kind="file", path="/etc/passwd"), error="InvalidRequest"),
    Hostile("a file above", _content(kind="file", path="/opt/../etc/passwd"), error="InvalidRequest"),
    Hostile("NUL in a path", _content(kind="file", path="/opt/a\0b"), error="InvalidRequest"),
    Hostile("a process's memory", _content(kind="file", path="/proc/self/environ"), error="InvalidRequest"),
    Hostile(
        "a host that is not allowed", _content(kind="url", url="http://169.254.169.254/"), error="InvalidRequest"
    ),
    Hostile("a URL of a file", _content(kind="url", url="file:///etc/passwd"), error="InvalidRequest"),
    Hostile("a URL of a Redis", _content(kind="url", url="redis://127.0.0.1:6379/"), error="InvalidRequest"),
    Hostile("CRLF in a URL", _content(kind="url", url="http://127.0.0.1/\r\nFLUSHALL"), error="InvalidRequest"),
    Hostile("a password in a URL", _content(kind="url", url="http://a:b@127.0.0.1/"), error="InvalidRequest"),
    Hostile("a blob whose key is a pattern", _content(kind="blob", key="*", size=1), error="InvalidRequest"),
    Hostile("a size that is huge", _content(kind="file", path="/opt/a", size=10**30), error="InvalidRequest"),
    Hostile(
        "a run that is no id",
        _with(task="bridge.stamp_chunk", keywords={"run": "../x", "number": 1}),
        error="InvalidRequest",
    ),
    Hostile(
        "escapes in a path's label",
        _with(task="bridge.create_stamp", keywords=STAMP | {"file_path": ESCAPES, "content": inline("x")}),
        error="InvalidRequest",
    ),
    # What is a message that anybody may send.
    Hostile("a header that nobody knows", _header("x-evil", {"deep": [1, {"a": ESCAPES}]})),
    Hostile("a tag that others may have", _property("delivery_tag", "1")),
    Hostile(
        "a callback that nobody knows", _step(task="os.system", args=["touch /tmp/owned"], kwargs={}, options={})
    ),
    Hostile("a job that nobody submitted", _header("x-bridge-job", "somebody-else-s")),
)


def _pickled(name: str) -> bytes:
    made = message(name, body=pickle.dumps(Runs()))
    made |= {"content-type": "application/x-python-serialize", "content-encoding": "binary"}
    return json.dumps(made).encode()


def _protocol_1(name: str) -> bytes:
    body = {"task": "bridge.generate_hash", "id": name, "args": [], "kwargs": {"content": inline(SECRET)}}
    return json.dumps(message(name, body=json.dumps(body)) | {"headers": {}}).encode()


CHANNEL: tuple[tuple[str, bytes], ...] = (
    ("bytes that are no text", b"\xff\xfe"),
    ("text that is no JSON", b"FLUSHALL"),
    ("a number", b"7"),
    ("a list", b"[]"),
    ("an object that is empty", b"{}"),
    ("brackets, a hundred thousand deep", _nested(DEEP).encode()),
    ("properties that are null", b'{"properties": null}'),
    ("a body that is no base64", json.dumps(message("x") | {"body": "%"}).encode()),
    ("a pickle", _pickled("x")),
    ("a method that is none", json.dumps(message("x", body='{"method": "no_such_thing"}')).encode()),
    ("a method that is a list", json.dumps(message("x", body='{"method": ["x"], "arguments": 7}')).encode()),
    ("a body that is a number", json.dumps(message("x", body="7")).encode()),
    ("a bomb", _bomb("application/x-gzip", zlib.compress)("x")),
)
"""What may come over the channel on which workers take orders."""
