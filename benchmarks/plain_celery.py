"""The plain peer: a Celery application as anybody writes it: three tasks, a bare `httpx.Client`, default settings.

It asks the same services the same things. It has no retries, no breaker, no record of what it was asked to do.
"""

import os
from pathlib import Path
from typing import Any

import httpx
from celery import Celery, chain

REDIS_URL = os.environ.get("PLAIN_REDIS_URL", "redis://127.0.0.1:1/1")
METADATA = f"{os.environ.get('PLAIN_METADATA', 'http://127.0.0.1:1')}/api/v1/metadata-stamping"
ONEXTREE = os.environ.get("PLAIN_ONEXTREE", "http://127.0.0.1:1")

app = Celery("plain", broker=REDIS_URL, backend=REDIS_URL, set_as_current=False)
app.conf.task_default_queue = "plain"
_clients: dict[int, httpx.Client] = {}


def _post(url: str, **what: Any) -> dict[str, Any]:
    client = _clients.get(os.getpid()) or _clients.setdefault(os.getpid(), httpx.Client(timeout=30))
    answer = client.post(url, **what)
    answer.raise_for_status()
    data: dict[str, Any] = answer.json()["data"]
    return data


@app.task(name="plain.hash")
def hash_file(path: str) -> dict[str, Any]:
    """Hash a file."""
    with Path(path).open("rb") as file:
        return _post(f"{METADATA}/hash", files={"file": ("data", file)}, params={"namespace": "default"})


@app.task(name="plain.intel")
def intelligence(hashed: dict[str, Any], context: str) -> dict[str, Any]:
    """Ask about a context."""
    asked = {"context": context, "include_patterns": True, "include_relationships": True}
    return {"hashed": hashed, "intelligence": _post(f"{ONEXTREE}/intelligence", json=asked)}


@app.task(name="plain.stamp")
def stamp(known: dict[str, Any], path: str) -> dict[str, Any]:
    """Stamp a file."""
    body = {
        "content": Path(path).read_text(),
        "file_path": path,
        "metadata": {"intelligence": known["intelligence"]},
        "namespace": "plain",
    }
    made = _post(f"{METADATA}/stamp", json=body)
    return {"path": path, "hash": known["hashed"]["file_hash"], "stamp_id": made["stamp_id"]}


def stamp_file(path: str, context: str) -> Any:
    """Build the chain hash | intelligence | stamp."""
    return chain(hash_file.s(path), intelligence.s(context), stamp.s(path))
