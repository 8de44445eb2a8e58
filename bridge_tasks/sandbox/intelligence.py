"""What OnexTree concludes from an indexed tree: intelligence about a context, matches for a question, a walk.

Pure: an index and a request in, plain JSON out.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Literal

from bridge_tasks.sandbox.tree_index import ROOT, Node, TreeIndex

Json = dict[str, Any]
Direction = Literal["up", "down", "both"]

MAX_MATCHES = 100

_DEFAULT = ("content_validation", "0.85")
_TOPICS: tuple[tuple[tuple[str, ...], str, str | None, str], ...] = (
    # words in the context, analysis type, confidence (None leaves the one so far), what the patterns are about
    (("auth", "login", "security"), "security_analysis", "0.90", "access control"),
    (("api", "endpoint", "rest"), "api_analysis", "0.88", "interface design"),
    (("test", "spec"), "test_analysis", None, "test coverage"),
    (("database", "model", "schema"), "data_analysis", "0.87", "data modelling"),
)
_WORD = re.compile(r"[^\W_]+")
_FILLERS = frozenset(
    ["a", "all", "an", "and", "any", "find", "for", "in", "of", "or", "show", "the", "to", "with"]
)


def no_tree() -> Json:
    """Return the minimal answer of a service without a tree."""
    return {
        "intelligence": {
            "analysis_type": "minimal",
            "confidence_score": "0.0",
            "recommendations": "No tree is loaded. Generate one for analysis of the project.",
        },
        "patterns": [],
        "relationships": [],
    }


def analyse(tree: TreeIndex, context: str, *, patterns: bool, relationships: bool) -> Json:
    """Answer about `context`: later topics overwrite the type, as in the known service.

    `patterns` false leaves out only the two general patterns given where no topic matched, as there.
    """
    analysis_type, confidence = _DEFAULT
    found: list[str] = []
    for words, kind, score, subject in _TOPICS:
        if word := next((word for word in words if word in context.lower()), None):
            analysis_type, confidence = kind, score or confidence
            count = sum(word in path.lower() for path in tree.nodes)
            found += [
                f"{word} pattern: {subject} is asked about",
                f"{word} structure: {count} of {len(tree.nodes)} paths mention it",
            ]
    if patterns and not found:
        found = [
            f"general structure: {tree.files} files in {tree.directories} directories",
            f"general pattern: {len(tree.by_extension)} kinds of file",
        ]
    return {
        "intelligence": {
            "analysis_type": analysis_type,
            "confidence_score": confidence,
            "recommendations": _recommend(tree, analysis_type, found),
        },
        "patterns": found,
        "relationships": _relationships(tree) if relationships else [],
    }


def search(tree: TreeIndex, question: str, max_depth: int, filters: Json) -> Json:
    """Find the nodes whose name, path, extension or type matches words of `question`.

    Only nodes at most `max_depth` below the root count. Filters: `type` (file, directory, or any other word, which
    then must be in the path), `extension`, `path` (a prefix); others are reported, not obeyed.
    """
    words = {_singular(word) for word in _WORD.findall(question.lower())} - _FILLERS
    reachable = (node for node in tree.nodes.values() if node.path != ROOT and node.depth <= max_depth)
    scored = [(_score(node, words), node) for node in reachable if _passes(node, filters)]
    matches = sorted(((score, node) for score, node in scored if score), key=lambda each: (-each[0], each[1].path))
    shown = matches[:MAX_MATCHES]
    return {
        "results": [{**asdict(node), "score": score} for score, node in shown],
        "paths": [
            [*(above.path for above in reversed(tree.ancestors(node.path))), node.path] for _, node in shown
        ],
        "metadata": {
            "words": sorted(words),
            "max_depth": max_depth,
            "total_matches": len(matches),
            "ignored_filters": sorted(filters.keys() - {"type", "extension", "path"}),
        },
    }


def walk(tree: TreeIndex, start: str, direction: Direction, max_nodes: int) -> Json:
    """Return the nodes above or below `start`, itself first, and the edges between them.

    Raises:
        KeyError: there is no such node.
    """
    origin = tree.nodes[start]
    around: list[Node] = [origin]
    truncated = False
    above = tree.ancestors(start) if direction in ("up", "both") else []
    below: Iterable[Node] = tree.descendants(start) if direction in ("down", "both") else ()
    for node in (*above, *below):
        if len(around) >= max_nodes:
            truncated = True
            break
        around.append(node)
    kept = {node.path for node in around}
    return {
        "nodes": [{"id": node.path, **asdict(node), "depth": node.depth} for node in around],
        "edges": [
            {"source": parent.path, "target": node.path, "type": "contains"}
            for node in around
            for parent in tree.ancestors(node.path)[:1]
            if parent.path in kept
        ],
        "metadata": {"start_node": start, "direction": direction, "truncated": truncated},
    }


def _recommend(tree: TreeIndex, analysis_type: str, patterns: list[str]) -> str:
    subject = analysis_type.removesuffix("_analysis").replace("_", " ")
    common = ", ".join(f"{count} .{name}" for name, count in tree.extensions().most_common(3) if name)
    return (
        f"Review the {subject} aspects against the {tree.files} indexed files ({common or 'no extensions'}); "
        f"{len(patterns)} patterns apply."
    )


def _relationships(tree: TreeIndex) -> list[Json]:
    structure = {
        "type": "project_structure",
        "source": "project",
        "target": "files",
        "files": tree.files,
        "directories": tree.directories,
    }
    per_extension = [
        {"type": "file_type", "source": "project", "target": f".{extension}", "files": count}
        for extension, count in tree.extensions().most_common()
        if extension
    ]
    return [structure, *per_extension]


def _score(node: Node, words: set[str]) -> int:
    """A word counts three where it is in the name, two as the extension or type, one elsewhere in the path."""
    name, path = node.name.lower(), node.path.lower()
    return sum(
        3 if word in name else 2 if word in (node.extension, node.type) else 1 if word in path else 0
        for word in words
    )


def _passes(node: Node, filters: Json) -> bool:
    wanted = str(filters.get("type", node.type)).lower()
    right_type = node.type == wanted if wanted in ("file", "directory") else _singular(wanted) in node.path.lower()
    extension = str(filters.get("extension", node.extension)).lower().removeprefix(".")
    return right_type and extension == node.extension and node.path.startswith(str(filters.get("path", "")))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word  # noqa: PLR2004 - "is", "bus"
