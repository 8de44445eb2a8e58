"""Whatever a service answers, a caller gets a value or one of our own errors."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_tasks.clients import AsyncMetadataStampingClient, AsyncOnexTreeClient
from bridge_tasks.errors import BridgeError
from tests.clients.mocked import answering, response
from tests.clients.stamping_jobs import item
from tests.never_suspending import finished

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "data", "error", "detail", "code", "message"]) | st.text(max_size=3), inner
        )
    ),
    max_leaves=6,
)
KEYS = [
    *("status", "data", "error", "detail", "message", "metadata", "hash", "file_hash", "results", "details"),
    *("validation_details", "is_valid", "intelligence", "patterns", "relationships", "stamp_data", "namespace"),
    *("total", "failed", "loc", "analysis_type"),
]
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["success", "error", "partial"]) | json_like,
        "data": st.dictionaries(st.sampled_from(KEYS), json_like) | json_like,
        "error": st.lists(st.fixed_dictionaries({"code": json_like, "message": json_like})) | json_like,
        "detail": st.lists(st.fixed_dictionaries({"loc": json_like, "msg": json_like})) | json_like,
        "metadata": json_like,
    },
)
CALLS: list[Callable[[AsyncMetadataStampingClient, AsyncOnexTreeClient], Any]] = [
    lambda metadata, _: metadata.generate_hash(b"test"),
    lambda metadata, _: metadata.create_stamp("ab" * 32, "/a", 1, {}),
    lambda metadata, _: metadata.get_stamp("ab" * 32),
    lambda metadata, _: metadata.validate_stamp("text"),
    lambda metadata, _: metadata.validate_protocol("text"),
    lambda metadata, _: metadata.batch_create_stamps([item("text")]),
    lambda metadata, _: metadata.query_namespace("n"),
    lambda metadata, _: metadata.get_service_metrics(),
    lambda metadata, _: metadata.health_check(),
    lambda metadata, _: metadata._validate_connection(),
    lambda _, onextree: onextree.get_intelligence("auth"),
    lambda _, onextree: onextree.query_knowledge("auth"),
    lambda _, onextree: onextree.navigate_tree("root"),
    lambda _, onextree: onextree._validate_connection(),
]


@settings(max_examples=200)
@given(
    call=st.sampled_from(CALLS), body=envelopes | json_like, status=st.sampled_from([200, 400, 404, 422, 500, 503])
)
def test_whatever_a_service_answers_the_caller_gets_a_value_or_one_of_our_errors(
    call: Callable[[AsyncMetadataStampingClient, AsyncOnexTreeClient], Any], body: Any, status: int
) -> None:
    clients = AsyncMetadataStampingClient("http://service"), AsyncOnexTreeClient("http://service")
    answer = response(status)
    answer.json = lambda **_: body  # type: ignore[method-assign] # NaN and lone surrogates included
    with answering(clients[0], answer), answering(clients[1], answer), suppress(BridgeError):
        finished(call(*clients))
