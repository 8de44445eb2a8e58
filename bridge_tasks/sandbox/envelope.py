"""How both services wrap what they answer: the envelope with five keys, and refusals with an envelope inside.

Shapes only. The oddities are the known service's own and are kept on purpose (see `refusal`).
"""

from typing import Any, Literal

from fastapi import HTTPException
from fastapi.responses import JSONResponse

Json = dict[str, Any]
Status = Literal["success", "partial", "error"]


def envelope(
    data: Json | None = None,
    *,
    status: Status = "success",
    error: str | list[Json] | None = None,
    message: str | None = None,
    metadata: Json | None = None,
) -> Json:
    """Wrap `data`; all five keys are always present."""
    return {"status": status, "data": data, "error": error, "message": message, "metadata": metadata}


def success(data: Json, metadata: Json | None = None) -> JSONResponse:
    """Answer 200 with `data` in an envelope."""
    return JSONResponse(envelope(data, metadata=metadata))


def problem(code: str, message: str, field: str | None = None) -> Json:
    """Describe one error as an entry of the envelope's `error` list."""
    return {"code": code, "field": field, "message": message}


def refused(code: str, message: str, field: str | None = None) -> Json:
    """Wrap one error; `metadata.status_code` says 500 whatever the HTTP status is, as the known service does."""
    return envelope(status="error", error=[problem(code, message, field)], metadata={"status_code": 500})


def refusal(http_status: int, code: str, message: str, field: str | None = None) -> HTTPException:
    """Build the exception whose body is `{"detail": <envelope>}`."""
    return HTTPException(http_status, detail=refused(code, message, field))


def grade(milliseconds: float, excellent_below: float, good_below: float) -> Literal["A", "B", "C"]:
    """Grade a duration the way every endpoint does, each with its own two thresholds in milliseconds."""
    if milliseconds < excellent_below:
        return "A"
    return "B" if milliseconds < good_below else "C"
