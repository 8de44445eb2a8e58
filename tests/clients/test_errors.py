"""The errors a caller can meet: one tree, as drawn; each survives the trip through a queue."""

import inspect
import json
import pickle
import re

import pytest

from bridge_tasks import errors
from bridge_tasks.errors import (
    BridgeError,
    CircuitBreakerError,
    ClientError,
    ConfigurationError,
    ContentUnavailable,
    InvalidRequest,
    ServiceUnavailableError,
)

EACH = [
    InvalidRequest("items.0.file_hash", "must be 64 hex characters"),
    ContentUnavailable("the file is gone"),
    ConfigurationError("BRIDGE_REDIS_URL is not a URL"),
    ClientError("Stamp creation failed", 422, "VALIDATION_ERROR", None, {"results": []}),
    ServiceUnavailableError("no answer in time", 503, None, 17.0),
    CircuitBreakerError("Circuit breaker 'x' is OPEN, blocking requests", None, None, 42.5),
]
each = pytest.mark.parametrize("error", EACH, ids=lambda error: type(error).__name__)


def drawn() -> dict[str, int]:
    """Read the tree in the module's docstring: each class, and how deep it stands."""
    names = "Error|Request|Refused|Unavailable|Busy|Limited|Failed|Expired|Cancelled|Unknown"
    lines = re.findall(rf"^(\W*)([A-Z]\w+(?:{names}))", inspect.getdoc(errors) or "", re.MULTILINE)
    return {name: len(indent) // 4 for indent, name in lines}


def test_the_tree_is_as_drawn() -> None:
    picture = drawn()
    root = picture["BridgeError"]
    real = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, BridgeError)
    }
    assert picture.keys() == real.keys()
    depths = {name: sum(issubclass(one, BridgeError) for one in kind.__mro__) - 1 for name, kind in real.items()}
    assert {name: depth - root for name, depth in picture.items()} == depths


@each
def test_an_error_survives_pickle(error: BridgeError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(again), vars(again), str(again)) == (type(error), vars(error), str(error))


@each
def test_an_error_survives_json_as_celery_carries_it(error: BridgeError) -> None:
    again = type(error)(*json.loads(json.dumps(error.args)))
    assert (vars(again), str(again)) == (vars(error), str(error))


@each
def test_an_error_says_whether_trying_again_may_help(error: BridgeError) -> None:
    assert error.retryable is isinstance(error, ServiceUnavailableError)


def test_a_rejection_by_the_breaker_satisfies_both_of_the_guide_s_handlers() -> None:
    assert issubclass(CircuitBreakerError, ServiceUnavailableError)
    assert issubclass(ServiceUnavailableError, ClientError)


def test_an_invalid_request_is_a_value_error_with_field_and_reason() -> None:
    error = InvalidRequest("items.0.file_hash", "must be 64 hex characters")
    assert isinstance(error, ValueError)
    assert (error.field, error.reason) == ("items.0.file_hash", "must be 64 hex characters")
    assert str(error) == "items.0.file_hash: must be 64 hex characters"


def test_what_came_with_a_refusal_is_not_shown() -> None:
    assert "secret" not in repr(ClientError("failed", 400, None, None, {"content": "secret"}))
