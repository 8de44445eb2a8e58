"""What OnexTree's answers are worth: real, made up in an emergency, a refusal for good, or our own stand-in.

Pure functions over its payloads, but for the hour in a stand-in. They ask nobody and keep nothing.
"""

import time
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter

from bridge_tasks.errors import ClientError
from bridge_tasks.models.fields import JsonObject
from bridge_tasks.models.onextree import IntelligenceResult

_SOUND: TypeAdapter[dict[str, Any]] = TypeAdapter(JsonObject)

_EMERGENCY_ANALYSES = ("minimal", "error_fallback")
"""What the service calls an answer that it gave without a tree, or after a crash, at HTTP 200."""

_MAY_BE_MISSING = ("query_knowledge", "navigate_tree")
"""Intelligence exists on every server: there, a 404 is a wrong address."""


def intelligence_answer(data: dict[str, Any]) -> IntelligenceResult:
    """Read an answer about a context; its confidence is not scored yet.

    Raises:
        ValidationError: it has another shape than an answer has.
    """
    parts = {
        "intelligence": data.get("intelligence", {}),
        "patterns": data.get("patterns", []),
        "relationships": data.get("relationships", []),
        "metadata": data.get("metadata", {}),
    }
    # What goes into a stamp must be fit for one: bounded, finite, not too deep.
    return IntelligenceResult(**_SOUND.validate_python(parts), degraded=is_emergency(data))


def is_emergency(data: dict[str, Any]) -> bool:
    """Tell the service's own emergency answers, which come as HTTP 200 success (wire-contract.md 5, row 28)."""
    intelligence, metadata = data.get("intelligence"), data.get("metadata")
    if isinstance(intelligence, dict) and intelligence.get("analysis_type") in _EMERGENCY_ANALYSES:
        return True
    return isinstance(metadata, dict) and (metadata.get("tree_loaded") is False or bool(metadata.get("error")))


def is_missing(operation: str, error: ClientError) -> bool:
    """Tell a 404: no such node, or (the known server, wire-contract.md 5, row 26) no such endpoint."""
    return operation in _MAY_BE_MISSING and error.status == HTTPStatus.NOT_FOUND


def fallback(context: str, error: Exception | None = None) -> IntelligenceResult:
    """Stand in for an answer that could not be had: empty, marked, worth nothing."""
    return IntelligenceResult(
        intelligence={
            "analysis_type": "fallback",
            "status": "degraded",
            "context": context,
            "confidence_score": "0.0",
            "recommendations": "Intelligence is unavailable: the stamp goes on without it.",
        },
        metadata={
            "fallback": True,
            "error": str(error) if error else "Service unavailable",
            "timestamp": time.time(),
        },
        degraded=True,
    )
