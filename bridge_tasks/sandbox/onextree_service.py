"""The OnexTree service, in either dialect: an ASGI application that answers from a directory tree it has indexed.

Indexes nothing outside the directory it is allowed to read. Both dialects have the same bare routes; `guide` has
plain payloads' minimal envelope, errors at top level, and a version in its health.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from bridge_tasks.sandbox import refusals
from bridge_tasks.sandbox.backend import Stopwatch
from bridge_tasks.sandbox.control import instrument
from bridge_tasks.sandbox.envelope import Json, envelope, refusal
from bridge_tasks.sandbox.intelligence import Direction, analyse, no_tree, search, walk
from bridge_tasks.sandbox.refusals import Dialect
from bridge_tasks.sandbox.tree_index import ROOT, Node, TreeIndex, index_tree

VERSION = "1.0.0"

_NO_TREE = "No tree loaded. Generate one first."
_ROOT_NAMES = frozenset(["", ".", "/", "root"])


class IntelligenceRequest(BaseModel):
    context: str
    include_patterns: bool = True
    include_relationships: bool = True


class GenerateRequest(BaseModel):
    project_root: str


class QueryRequest(BaseModel):
    query: str
    query_type: str = "auto"
    limit: int = 100


class KnowledgeRequest(BaseModel):
    query: str
    max_depth: Annotated[int, Field(ge=0)] = 3
    filters: Json | None = None


class NavigateRequest(BaseModel):
    start_node: str
    direction: Direction = "both"
    max_nodes: Annotated[int, Field(ge=1)] = 100


def create_app(dialect: Dialect = "service", root: Path | None = None, allowed: Path | None = None) -> FastAPI:
    """Make the application.

    Args:
        dialect: which of the two wire formats it speaks.
        root: a directory to index at once; without one, no tree is loaded until `POST /generate`.
        allowed: the directory outside which `/generate` indexes nothing; by default `root`. Without either,
            `/generate` is always refused.

    Raises:
        NotADirectoryError: `root` is not a directory.
    """
    app = FastAPI(title="OnexTree sandbox")
    refusals.install(app, dialect)
    instrument(app)
    service = OnexTree(dialect, None if root is None else index_tree(root), allowed or root)
    for method, path, endpoint in (
        ("GET", "/", service.root),
        ("GET", "/health", service.health),
        ("GET", "/stats", service.stats),
        ("POST", "/intelligence", service.intelligence),
        ("POST", "/generate", service.generate),
        ("POST", "/query", service.query),
        ("POST", "/knowledge/query", service.knowledge),
        ("POST", "/tree/navigate", service.navigate),
    ):
        app.add_api_route(path, endpoint, methods=[method])
    return app


class OnexTree:
    """The endpoints, over the tree that is loaded now, if any."""

    def __init__(self, dialect: Dialect, tree: TreeIndex | None, allowed: Path | None) -> None:
        self._dialect = dialect
        self._tree = tree
        self._allowed = None if allowed is None else allowed.resolve()

    async def root(self) -> Response:
        data = {
            "service": "OnexTree",
            "version": VERSION,
            "status": "ready" if self._tree else "no_tree_loaded",
            "endpoints": {name: f"/{name}" for name in ("generate", "query", "stats", "health")},
        }
        return self._success(data)

    async def health(self) -> Response:
        loaded = {"tree_loaded": self._tree is not None, "total_files": self._tree.files if self._tree else 0}
        version = {"version": VERSION} if self._dialect == "guide" else {}
        return JSONResponse({"status": "healthy", **loaded, **version})

    async def stats(self) -> Response:
        tree = self._tree
        if tree is None:
            return self._success({"tree_loaded": False}, "No tree loaded")
        statistics = {
            "total_files": tree.files,
            "total_directories": tree.directories,
            "file_type_distribution": dict(tree.extensions()),
            "total_size_bytes": tree.size,
            "last_updated": tree.indexed_at.isoformat(),
            "index_sizes": {
                "exact_path_entries": len(tree.nodes),
                "extension_types": len(tree.by_extension),
                "directories_indexed": tree.directories,
                "unique_names": len(tree.by_name),
            },
        }
        return self._success({"tree_loaded": True, "statistics": statistics})

    async def intelligence(self, body: IntelligenceRequest) -> Response:
        watch = Stopwatch()
        tree = self._tree
        answer = (
            no_tree()
            if tree is None
            else analyse(
                tree, body.context, patterns=body.include_patterns, relationships=body.include_relationships
            )
        )
        answer["metadata"] = {
            "analysis_time_ms": watch.milliseconds(),
            "tree_loaded": tree is not None,
            "context_analyzed": tree is not None,
        }
        return self._success(answer)

    async def generate(self, body: GenerateRequest) -> Response:
        watch = Stopwatch()
        self._tree = tree = await asyncio.to_thread(self._index, body.project_root)
        data = {
            "success": True,
            "total_files": tree.files,
            "total_directories": tree.directories,
            "total_size_mb": tree.size / (1 << 20),
            "generation_time_ms": watch.milliseconds(),
        }
        return self._success(data, "Tree generated successfully")

    async def query(self, body: QueryRequest) -> Response:
        watch = Stopwatch()
        tree = self._loaded()
        kind = body.query_type if body.query_type != "auto" else _query_type(body.query)
        found = _look_up(tree, kind, body.query)[: max(0, body.limit)]
        data = {
            "success": True,
            "query": body.query,
            "query_type": kind,
            "results": [_shown(node) for node in found],
            "count": len(found),
            "execution_time_ms": watch.milliseconds(),
        }
        return self._success(data)

    async def knowledge(self, body: KnowledgeRequest) -> Response:
        return self._success(search(self._loaded(), body.query, body.max_depth, body.filters or {}))

    async def navigate(self, body: NavigateRequest) -> Response:
        start = body.start_node.removeprefix("./").strip("/")
        try:
            answer = walk(self._loaded(), ROOT if start in _ROOT_NAMES else start, body.direction, body.max_nodes)
        except KeyError:
            raise refusal(404, "NODE_NOT_FOUND", "there is no such node", "start_node") from None
        return self._success(answer)

    def _index(self, project_root: str) -> TreeIndex:
        """Index a directory within the allowed one; nothing outside it is even looked at."""
        root = Path(project_root).resolve()
        if self._allowed is None or not root.is_relative_to(self._allowed):
            raise HTTPException(400, "Access denied: the path is outside the allowed directory")
        if not root.exists():
            raise HTTPException(400, "Path does not exist")
        if not root.is_dir():
            raise HTTPException(400, "Path is not a directory")
        return index_tree(root)

    def _loaded(self) -> TreeIndex:
        if self._tree is None:
            raise HTTPException(400, _NO_TREE)
        return self._tree

    def _success(self, data: Json, message: str | None = None) -> Response:
        if self._dialect == "guide":
            return JSONResponse({"status": "success", "data": data})
        return JSONResponse(envelope(data, message=message))


def _query_type(query: str) -> str:
    if query.startswith("."):
        return "extension"
    return "path" if "/" in query else "name"


def _look_up(tree: TreeIndex, kind: str, query: str) -> list[Node]:
    if kind == "extension":
        return list(tree.by_extension.get(query.removeprefix(".").lower(), ()))
    if kind == "name":
        return list(tree.by_name.get(query, ()))
    if kind == "path":
        node = tree.nodes.get(query.strip("/"))
        return [] if node is None else [node]
    raise HTTPException(400, "Unknown query type")


def _shown(node: Node) -> dict[str, Any]:
    return {key: getattr(node, key) for key in ("path", "name", "type", "size", "extension")}
