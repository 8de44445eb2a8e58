"""Messages as strangers send them: by name, so that nothing is checked before a worker does."""

import base64
from typing import Any

from celery.result import AsyncResult

from bridge_tasks.app import app
from bridge_tasks.messages import HEADER
from tests.workers import PATIENCE


def inline(text: str) -> dict[str, str]:
    return {"kind": "inline", "data": base64.b64encode(text.encode()).decode()}


def sent(name: str, cid: str | None = None, **arguments: Any) -> "AsyncResult[Any]":
    return app.send_task(f"bridge.{name}", kwargs=arguments, headers={HEADER: cid} if cid else None)


def done(name: str, cid: str | None = None, **arguments: Any) -> Any:
    return sent(name, cid, **arguments).get(timeout=PATIENCE)
