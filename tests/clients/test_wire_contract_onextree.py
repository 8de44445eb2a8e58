"""wire-contract.md, part 5, rows 26 to 29 and 39: intelligence, knowledge and the tree, in both dialects."""

import pytest
from starlette.responses import JSONResponse

from bridge_tasks.clients import (
    AsyncMetadataStampingClient,
    AsyncOnexTreeClient,
    ClientError,
)
from tests.clients.in_process import saying, success
from tests.clients.stamping_jobs import new_text, stamp
from tests.running_service import RunningService

# Row 26: routes that the known OnexTree lacks


async def test_a_route_that_is_missing_is_a_client_error_and_never_blocks_the_others() -> None:
    missing = JSONResponse({"detail": "Not Found"}, 404)
    app = saying(*[missing] * 6, success({"intelligence": {"analysis_type": "x"}}))
    async with AsyncOnexTreeClient(app=app) as client:
        for start in ("a", "b", "c"):  # the same question would be answered from the cache
            for ask in (client.query_knowledge, client.navigate_tree):
                with pytest.raises(ClientError, match="404"):
                    await ask(start)
        assert not (await client.get_intelligence("auth")).degraded


# Rows 27 to 29: intelligence


@pytest.mark.parametrize(
    ("context", "word"),  # behaviours, row 109
    [
        ("authentication patterns", "auth"),
        ("API endpoints design", "api"),
        ("database schema validation", "data"),
        ("test coverage analysis", "test"),
        ("anything else", "pattern"),
    ],
)
async def test_intelligence_is_real_and_scored(context: str, word: str, tree_client: AsyncOnexTreeClient) -> None:
    result = await tree_client.get_intelligence(context)
    assert not result.degraded
    assert word in " ".join(result.patterns).lower()
    assert {"analysis_type", "confidence_score", "recommendations"} <= result["intelligence"].keys()
    assert float(result.intelligence["confidence_score"]) > 0
    assert result.confidence.overall > 0.2


async def test_intelligence_can_be_stamped(
    tree_client: AsyncOnexTreeClient, client: AsyncMetadataStampingClient
) -> None:
    intelligence = await tree_client.get_intelligence("authentication patterns")
    made = await stamp(client, new_text(), stamp_data={"intelligence": intelligence, "context": "auth"})
    assert made["stamp_id"]


async def test_knowledge_and_tree_are_answered(tree_client: AsyncOnexTreeClient) -> None:  # rows 26, 39
    knowledge = await tree_client.query_knowledge("Find all API endpoints", max_depth=3, filters={"type": "file"})
    assert "api/endpoints.py" in [result["path"] for result in knowledge["results"]]
    walked = await tree_client.navigate_tree("root", direction="down", max_nodes=100)
    assert "auth/login.py" in [node["path"] for node in walked["nodes"]]
    assert {"nodes", "edges", "metadata"} <= walked.keys()


async def test_a_node_that_is_not_there_is_a_client_error(tree_client: AsyncOnexTreeClient) -> None:
    with pytest.raises(ClientError, match="there is no such node"):
        await tree_client.navigate_tree("nowhere")


async def test_onextree_is_well_and_connected(tree_client: AsyncOnexTreeClient) -> None:
    assert (await tree_client.health_check())["status"] == "healthy"
    assert await tree_client._validate_connection() is True


async def test_the_second_question_does_not_reach_the_service(
    tree_client: AsyncOnexTreeClient, onextree: RunningService
) -> None:  # behaviours, row 113
    first = await tree_client.get_intelligence("authentication")
    assert await tree_client.get_intelligence("authentication") == first
    assert len(onextree.asked("/intelligence")) == 1
