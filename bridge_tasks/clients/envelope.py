"""How the services wrap what they say, in all their dialects: one reader for answers, one for errors.

Answers: `{status, data, error, message, metadata}`, or bare JSON. Errors, four forms (wire-contract.md 1.4 and 5,
row 17): a top-level text, a list of `{code, field, message}`, either of them inside `detail`, and FastAPI's own
`detail` (a text or a list). Pure functions over decoded JSON; what was received never reaches a message unless
it is short, printable text about a 4xx.
"""

import re
from dataclasses import dataclass
from typing import Any

# Tuples: whether a status is in one is asked of anything a service may say, hashable or not.
SUCCESS = ("success",)
SUCCESS_OR_PARTIAL = ("success", "partial")

_CODE = re.compile(r"[A-Z][A-Z0-9_]{2,63}")
_LONGEST_MESSAGE = 200


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a service says is wrong: its code where it has one, its words where it has some."""

    code: str | None = None
    message: str | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.code, self.message) if part)


def is_envelope(body: Any) -> bool:
    """Tell an envelope from a bare answer that happens to have a `status` (such as /health)."""
    return isinstance(body, dict) and "status" in body and ("data" in body or "error" in body)


def complaint(body: Any) -> Complaint:
    """Find the complaint in an error body of any of the four forms."""
    if not isinstance(body, dict):
        return Complaint()
    detail = body.get("detail")
    if isinstance(detail, dict):
        return complaint(detail)
    if isinstance(detail, str):
        return Complaint(message=_words(detail))
    if isinstance(detail, list):
        return _first_violation(detail)
    return _first_error(body.get("error")) or Complaint(message=_words(body.get("message")))


def is_router_404(body: Any) -> bool:
    """Tell "no such route" (a wrong base URL) from "no such thing"."""
    return isinstance(body, dict) and body.get("detail") == "Not Found"


def _first_error(error: Any) -> Complaint | None:
    if isinstance(error, str):
        return Complaint(message=_words(error))
    if isinstance(error, list) and error and isinstance(error[0], dict):
        code = error[0].get("code")
        known = isinstance(code, str) and _CODE.fullmatch(code)
        return Complaint(code if known else None, _words(error[0].get("message")))
    return None


def _first_violation(violations: list[Any]) -> Complaint:
    """FastAPI's list: where and why, never its `input`."""
    for violation in violations:
        if isinstance(violation, dict):
            loc = violation.get("loc")
            where = ".".join(map(str, loc)) if isinstance(loc, list) else "request"
            return Complaint(message=_words(f"{where}: {violation.get('msg', 'invalid')}"))
    return Complaint()


def _words(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    printable = "".join(char if char.isprintable() else " " for char in value[: _LONGEST_MESSAGE * 2])
    return printable if len(printable) <= _LONGEST_MESSAGE else printable[: _LONGEST_MESSAGE - 1] + "…"
