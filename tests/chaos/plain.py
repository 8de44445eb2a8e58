"""What we are compared with: plain Celery with its safest settings, and tasks that call with bare httpx.

It imports nothing of `bridge_tasks`: the same jobs, the same services, the same Redis, and all that its own manual
and its issues advise (acknowledge late, redeliver soon, requeue when a child dies, retry what fails).
"""

import os
from pathlib import Path
from typing import Any

import httpx
from celery import Celery, Task

app = Celery("plain", broker=os.environ.get("PLAIN_REDIS_URL"), backend=os.environ.get("PLAIN_REDIS_URL"))

VISIBILITY = 30
"""Seconds: several times the longest task, so that what a dead worker held comes back soon, and nothing else."""

_ENDURING = {"max_retries": 60, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}

app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_acks_on_failure=True,
    task_acks_on_timeout=True,
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    worker_deduplicate_successful_tasks=True,
    result_extended=True,
    result_backend_always_retry=True,
    result_backend_max_retries=60,
    task_publish_retry_policy=_ENDURING,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": VISIBILITY,
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 15,
    },
    visibility_timeout=VISIBILITY,
    result_backend_transport_options={"visibility_timeout": VISIBILITY, "retry_policy": _ENDURING},
    task_default_queue="plain",
)

_METADATA = os.environ.get("PLAIN_METADATA_URL", "") + "/api/v1/metadata-stamping"
_ONEXTREE = os.environ.get("PLAIN_ONEXTREE_URL", "")
_http = httpx.Client(timeout=2.0)
"""One for each process: it opens nothing before it is used, and so survives a fork."""

_retrying: dict[str, Any] = {
    "autoretry_for": (httpx.HTTPError, ValueError, KeyError),
    "max_retries": 60,
    "retry_backoff": 0.5,
    "retry_backoff_max": 3,
    "retry_jitter": True,
}


def _told(answer: httpx.Response) -> dict[str, Any]:
    """The data of an envelope; whatever is none is an error, and tried again."""
    answer.raise_for_status()
    body = answer.json()
    if body["status"] != "success":
        raise ValueError(body["status"])
    data: dict[str, Any] = body["data"]
    return data


def _hash(path: str) -> str:
    content = Path(path).read_bytes()
    return str(_told(_http.post(f"{_METADATA}/hash", files={"file": content}))["file_hash"])


def _intelligence(path: str) -> dict[str, Any]:
    answer = _http.post(f"{_ONEXTREE}/intelligence", json={"context": f"section {path[-2:]}"})
    return dict(answer.json()) if answer.is_success else {}


def _stamp(path: str, file_hash: str, known: dict[str, Any]) -> str:
    text = Path(path).read_text()
    body = {
        "content": text,
        "file_hash": file_hash,
        "file_path": path,
        "file_size": len(text),
        "stamp_data": {"intelligence": known},
    }
    return str(_told(_http.post(f"{_METADATA}/stamp", json=body))["stamp_id"])


@app.task(bind=True, name="plain.hash", **_retrying)
def hash_step(_: "Task[Any, Any]", path: str) -> str:
    """Hash."""
    return _hash(path)


@app.task(bind=True, name="plain.intelligence", **_retrying)
def intelligence_step(_: "Task[Any, Any]", file_hash: str, path: str) -> list[Any]:
    """Ask about it."""
    return [file_hash, _intelligence(path)]


@app.task(bind=True, name="plain.stamp", **_retrying)
def stamp_step(_: "Task[Any, Any]", known: list[Any], path: str) -> str:
    """Stamp it."""
    return _stamp(path, known[0], known[1])


@app.task(bind=True, name="plain.stamp_file", **_retrying)
def stamp_file(_: "Task[Any, Any]", path: str) -> str:
    """Do all three."""
    return _stamp(path, _hash(path), _intelligence(path))
