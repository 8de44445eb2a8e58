"""OnexTree answers from the tree it was given, and reads nothing outside the one it may."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from bridge_tasks.sandbox.onextree_service import create_app
from bridge_tasks.sandbox.server import running
from bridge_tasks.sandbox.tree_index import index_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("allowed") / "project"
    for path in (
        "README.md",
        ".hidden",
        "src/main.py",
        "src/api/endpoints.py",
        "src/api/auth.py",
        "tests/test_api.PY",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("content")
    (root / "outside").symlink_to("/")
    (root / "src" / "loop").symlink_to(root)
    return root


@pytest.fixture(scope="module", params=["service", "guide"])
def client(request: pytest.FixtureRequest, tree: Path) -> Iterator[httpx.Client]:
    with running(create_app(request.param, tree)) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def empty(tree: Path) -> Iterator[httpx.Client]:
    with running(create_app("service", allowed=tree.parent)) as url, httpx.Client(base_url=url) as client:
        yield client


def data_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "success"
    data: dict[str, Any] = answer.json()["data"]
    return data


def test_the_index_counts_files_and_directories_and_follows_no_link(tree: Path) -> None:
    index = index_tree(tree)

    assert (index.files, index.directories, index.size) == (6, 3, 6 * len("content"))
    assert "src/loop" not in index.nodes
    assert index.extensions() == {"py": 4, "md": 1, "": 1}


def test_a_tree_with_too_many_nodes_is_refused(tree: Path) -> None:
    with pytest.raises(ValueError, match="more than 4"):
        index_tree(tree, max_nodes=4)


def test_health_is_flat_and_says_whether_a_tree_is_loaded(client: httpx.Client, empty: httpx.Client) -> None:
    health = client.get("/health").json()

    assert (health["status"], health["tree_loaded"], health["total_files"]) == ("healthy", True, 6)
    assert empty.get("/health").json() == {"status": "healthy", "tree_loaded": False, "total_files": 0}


@pytest.mark.parametrize(
    ("context", "analysis_type", "confidence", "word"),
    [
        ("authentication patterns", "security_analysis", "0.90", "auth"),
        ("Find the API", "api_analysis", "0.88", "api"),
        ("auth tests", "test_analysis", "0.90", "test"),
        ("login for the database API", "data_analysis", "0.87", "database"),
        ("", "content_validation", "0.85", "pattern"),
    ],
)
def test_intelligence_follows_the_words_of_the_context(
    client: httpx.Client, context: str, analysis_type: str, confidence: str, word: str
) -> None:
    data = data_of(client.post("/intelligence", json={"context": context}))

    assert data["intelligence"]["analysis_type"] == analysis_type
    assert data["intelligence"]["confidence_score"] == confidence
    assert "6 indexed files" in data["intelligence"]["recommendations"]
    assert any(word in pattern for pattern in data["patterns"])
    assert data["metadata"]["tree_loaded"] is True


def test_relationships_tell_the_structure_and_every_extension(client: httpx.Client) -> None:
    told = data_of(client.post("/intelligence", json={"context": "x"}))["relationships"]
    untold = data_of(client.post("/intelligence", json={"context": "x", "include_relationships": False}))

    assert [(each["type"], each["files"]) for each in told] == [
        ("project_structure", 6),
        ("file_type", 4),
        ("file_type", 1),
    ]
    assert untold["relationships"] == []


def test_leaving_out_patterns_leaves_out_only_the_general_ones(client: httpx.Client) -> None:
    def patterns(context: str) -> int:
        request = {"context": context, "include_patterns": False}
        return len(data_of(client.post("/intelligence", json=request))["patterns"])

    assert (patterns("x"), patterns("auth")) == (0, 2)


def test_without_a_tree_intelligence_is_minimal_and_queries_are_refused(empty: httpx.Client) -> None:
    data = data_of(empty.post("/intelligence", json={"context": "auth"}))

    assert data["intelligence"]["analysis_type"] == "minimal"
    assert data["intelligence"]["confidence_score"] == "0.0"
    assert (data["patterns"], data["metadata"]["tree_loaded"]) == ([], False)
    assert empty.get("/").json()["data"]["status"] == "no_tree_loaded"
    assert empty.get("/stats").json()["message"] == "No tree loaded"
    for path, request in (
        ("/query", {"query": ".py"}),
        ("/knowledge/query", {"query": "x"}),
        ("/tree/navigate", {"start_node": "root"}),
    ):
        answer = empty.post(path, json=request)
        assert answer.status_code == 400
        assert "no tree loaded" in answer.json()["detail"].lower()


def test_a_tree_is_generated_within_the_allowed_directory_only(empty: httpx.Client, tree: Path) -> None:
    answer = empty.post("/generate", json={"project_root": str(tree)})

    data = data_of(answer)
    assert (data["total_files"], data["total_directories"]) == (6, 3)
    assert data["total_size_mb"] > 0
    assert answer.json()["message"] == "Tree generated successfully"
    for path, reason in (
        (tree / "nowhere", "does not exist"),
        (tree / "README.md", "not a directory"),
        (tree / "outside", "denied"),
        (tree / ".." / "..", "denied"),
        (Path("/etc"), "denied"),
        ("\x00", "Invalid"),
    ):
        refused = empty.post("/generate", json={"project_root": str(path)})
        assert refused.status_code in (400, 422)
        assert reason in str(refused.json()["detail"])


@pytest.mark.parametrize(
    ("query", "kind", "paths"),
    [
        (".py", "extension", ["src/api/auth.py", "src/api/endpoints.py", "src/main.py", "tests/test_api.PY"]),
        ("src/main.py", "path", ["src/main.py"]),
        ("main.py", "name", ["src/main.py"]),
        ("main", "name", []),
    ],
)
def test_a_query_is_by_extension_path_or_exact_name(
    client: httpx.Client, query: str, kind: str, paths: list[str]
) -> None:
    data = data_of(client.post("/query", json={"query": query}))

    assert data["query_type"] == kind
    assert sorted(result["path"] for result in data["results"]) == paths
    assert data["count"] == len(paths)
    for result in data["results"]:
        assert result.keys() == {"path", "name", "type", "size", "extension"}


def test_an_unknown_kind_of_query_is_refused(client: httpx.Client) -> None:
    assert client.post("/query", json={"query": "x", "query_type": "colour"}).status_code == 400


def test_stats_describe_the_tree(client: httpx.Client) -> None:
    statistics = data_of(client.get("/stats"))["statistics"]

    assert statistics["file_type_distribution"]["py"] == 4
    assert statistics["index_sizes"]["directories_indexed"] == 3


def test_a_knowledge_query_matches_words_within_depth_and_filters(client: httpx.Client) -> None:
    def found(**request: Any) -> list[str]:
        data = data_of(client.post("/knowledge/query", json=request))
        return [result["path"] for result in data["results"]]

    assert found(query="Find all API endpoints")[0] == "src/api/endpoints.py"
    assert found(query="api", max_depth=2) == ["src/api", "tests/test_api.PY"]
    assert found(query="api", filters={"type": "file", "extension": ".py", "path": "tests"}) == [
        "tests/test_api.PY"
    ]
    assert found(query="api", filters={"type": "endpoint"}) == ["src/api/endpoints.py"]
    assert found(query="nothing here") == []


def test_a_knowledge_query_shows_the_way_to_each_result(client: httpx.Client) -> None:
    data = data_of(client.post("/knowledge/query", json={"query": "auth", "filters": {"colour": "red"}}))

    assert data["paths"] == [[".", "src", "src/api", "src/api/auth.py"]]
    assert data["metadata"]["ignored_filters"] == ["colour"]


@pytest.mark.parametrize(
    ("direction", "nodes"),
    [
        ("up", {"src/api", "src", "."}),
        ("down", {"src/api", "src/api/auth.py", "src/api/endpoints.py"}),
        ("both", {"src/api", "src", ".", "src/api/auth.py", "src/api/endpoints.py"}),
    ],
)
def test_navigation_goes_up_down_or_both_ways(
    client: httpx.Client, direction: Literal["up", "down", "both"], nodes: set[str]
) -> None:
    data = data_of(client.post("/tree/navigate", json={"start_node": "src/api", "direction": direction}))

    assert {node["id"] for node in data["nodes"]} == nodes
    assert len(data["edges"]) == len(nodes) - 1
    assert all({edge["source"], edge["target"]} <= nodes for edge in data["edges"])


def test_navigation_stops_at_the_number_of_nodes_asked_for(client: httpx.Client) -> None:
    data = data_of(client.post("/tree/navigate", json={"start_node": "root", "max_nodes": 3}))

    assert len(data["nodes"]) == 3
    assert data["metadata"]["truncated"] is True


def test_a_node_that_is_not_there_is_told_apart_from_a_route_that_is_not(client: httpx.Client) -> None:
    node = client.post("/tree/navigate", json={"start_node": "no/such"})
    route = client.post("/tree/no-such", json={})

    assert (node.status_code, route.status_code) == (404, 404)
    assert "there is no such node" in node.text
    assert "Not Found" in route.text
    assert client.post("/tree/navigate", json={"start_node": "x", "direction": "in"}).status_code == 422
