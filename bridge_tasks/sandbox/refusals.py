"""How an application answers when a handler raises: the known service's codes, or the guide's flat body.

No answer repeats an exception's text unless the text is one of our own `ValueError` messages.
"""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from bridge_tasks.sandbox.envelope import refused
from bridge_tasks.sandbox.keys import KeyReused

Dialect = Literal["service", "guide"]
"""`service`: the service as it runs. `guide`: as the client guide expects it."""

Handler = Callable[[Request, Exception], Awaitable[Response]]

_ANSWERS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (KeyReused, 422, "IDEMPOTENCY_KEY_REUSED", "Invalid input"),
    (ValueError, 422, "VALIDATION_ERROR", "Invalid input"),
    (TypeError, 422, "VALIDATION_ERROR", "Invalid input"),
    (sqlite3.Error, 503, "DATABASE_CONNECTION_ERROR", "the database cannot be used"),
    (OSError, 503, "DATABASE_CONNECTION_ERROR", "the database cannot be reached"),
    (MemoryError, 507, "MEMORY_ERROR", "not enough memory"),
    (RuntimeError, 500, "RUNTIME_ERROR", "the service cannot do that now"),
    (Exception, 500, "UNEXPECTED_ERROR", "unexpected error"),
)


def install(app: FastAPI, dialect: Dialect) -> None:
    """Make `app` answer every exception in `dialect`."""
    for kind, status, code, text in _ANSWERS:
        app.add_exception_handler(kind, _answer(dialect, status, code, text))
    app.add_exception_handler(RequestValidationError, _wrong_schema)
    if dialect == "guide":
        app.add_exception_handler(RequestValidationError, _wrong_schema_flat)
        app.add_exception_handler(HTTPException, _flat)


def _answer(dialect: Dialect, status: int, code: str, text: str) -> Handler:
    async def answer(_: Request, error: Exception) -> Response:
        ours = isinstance(error, ValueError | TypeError) and not isinstance(error, ValidationError)
        message = f"{text}: {error}" if ours else text
        body = flat_error(message) if dialect == "guide" else {"detail": refused(code, message)}
        return JSONResponse(body, status)

    return answer


def flat_error(message: str) -> dict[str, object]:
    """Return an error as the guide's client expects it: at top level, as text."""
    return {"status": "error", "data": None, "error": message}


async def _wrong_schema(_: Request, error: Exception) -> Response:
    details = _details(error)
    try:
        return JSONResponse({"detail": jsonable_encoder(details)}, 422)
    except ValueError:
        # FastAPI repeats the input; a lone surrogate or a NaN in it cannot be written as JSON.
        bare = [{key: detail[key] for key in ("type", "loc", "msg")} for detail in details]
        return JSONResponse({"detail": bare}, 422)


async def _wrong_schema_flat(_: Request, error: Exception) -> Response:
    texts = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in _details(error)]
    return JSONResponse(flat_error("; ".join(texts)), 422)


async def _flat(_: Request, error: Exception) -> Response:
    """Turn the other dialect's refusal into text: its detail is a string, or an envelope with an error list."""
    detail, status = (error.detail, error.status_code) if isinstance(error, HTTPException) else (str(error), 500)
    wrapped: object = detail
    message = wrapped["error"][0]["message"] if isinstance(wrapped, dict) else detail
    return JSONResponse(flat_error(message), status)


def _details(error: Exception) -> list[dict[str, Any]]:
    return [dict(detail) for detail in error.errors()] if isinstance(error, RequestValidationError) else []
