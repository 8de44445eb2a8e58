"""Small services in this process, for shapes that the wild has and the sandbox does not speak."""

import itertools
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge_tasks.clients import AsyncMetadataStampingClient
from bridge_tasks.resilience.policy.retry import RetryConfig

PREFIX = "/api/v1/metadata-stamping"
AT_ONCE = RetryConfig(attempts=3, initial=0.0)


def saying(*answers: Response) -> Starlette:
    """Make a service that gives these answers in turn, the last one for ever, whatever it is asked."""
    script = itertools.chain(answers, itertools.repeat(answers[-1]))

    async def answer(_: Request) -> Response:
        return next(script)

    methods = ["GET", "POST"]
    return Starlette(routes=[Route("/{path:path}", answer, methods=methods)])


def metadata_client(*answers: Response, **given: Any) -> AsyncMetadataStampingClient:
    """Make a client of a service in this process that gives these answers; its routes have the prefix."""
    return AsyncMetadataStampingClient(f"http://in-process{PREFIX}", app=saying(*answers), retry=AT_ONCE, **given)


def success(data: Any, **metadata: Any) -> JSONResponse:
    return JSONResponse({"status": "success", "data": data, "error": None, "message": None, "metadata": metadata})
