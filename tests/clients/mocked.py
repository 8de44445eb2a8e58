"""The guide's way to test a client: its `_http_client` replaced by a mock, the response a bare one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import AsyncMock, MagicMock, patch

import httpx

from bridge_tasks.clients import BaseServiceClient


@contextmanager
def answering(client: BaseServiceClient, *answers: Any) -> Iterator[AsyncMock]:
    """Let `client` meet these answers, the last one for ever: JSON, a whole response, or an error.

    JSON comes in a bare MagicMock that has `.json()` and `.raise_for_status()` and nothing else of its own.
    """
    script = list(answers)

    def answer(**_: Any) -> Any:
        line = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(line, BaseException):
            raise line
        return line if isinstance(line, httpx.Response) else MagicMock(json=MagicMock(return_value=line))

    http = AsyncMock(spec=httpx.AsyncClient)
    http.request = AsyncMock(side_effect=answer)
    with patch.object(client, "_http_client", http):
        yield http


def response(status: int, body: Any = None, **headers: str) -> httpx.Response:
    """Make a real response, for what a mock cannot tell: its status and its headers."""
    request = httpx.Request("POST", "http://service/")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=body, headers=named, request=request)
