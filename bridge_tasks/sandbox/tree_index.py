"""A directory tree, indexed: names, extensions, paths and who contains whom.

Reads names and sizes only, never a file's content. Follows no symbolic link: one may lead out of the tree, or
round in a circle. Leaves out what a machine made: version control, caches, environments.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from bridge_tasks.models.ignored import ignored_directory, ignored_file

ROOT = "."
MAX_NODES = 200_000


@dataclass(frozen=True, slots=True)
class Node:
    """A file or directory; `path` is relative to the root, `size` in bytes, `extension` without its dot."""

    path: str
    name: str
    type: Literal["file", "directory"]
    size: int = 0
    extension: str = ""

    @property
    def depth(self) -> int:
        """How many steps below the root."""
        return 0 if self.path == ROOT else self.path.count("/") + 1


@dataclass(frozen=True, slots=True)
class TreeIndex:
    """An indexed tree; build it with `index_tree`. Nodes are in the order of their paths, the root first."""

    nodes: Mapping[str, Node]
    children: Mapping[str, tuple[str, ...]]
    by_extension: Mapping[str, tuple[Node, ...]]
    by_name: Mapping[str, tuple[Node, ...]]
    indexed_at: datetime

    @property
    def files(self) -> int:
        """How many files there are."""
        return sum(map(len, self.by_extension.values()))

    @property
    def directories(self) -> int:
        """How many directories there are below the root."""
        return len(self.nodes) - self.files - 1

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(node.size for node in self.nodes.values())

    def extensions(self) -> Counter[str]:
        """Count the files of each extension; those without one are under the empty string."""
        return Counter({extension: len(nodes) for extension, nodes in self.by_extension.items()})

    def ancestors(self, path: str) -> list[Node]:
        """Return the nodes above `path`, nearest first, ending with the root."""
        if path == ROOT:
            return []
        return [self.nodes[str(parent)] for parent in PurePosixPath(path).parents]

    def descendants(self, path: str) -> Iterator[Node]:
        """Yield the nodes below `path`, level by level."""
        level = [path]
        while level:
            below = [child for parent in level for child in self.children.get(parent, ())]
            yield from (self.nodes[child] for child in below)
            level = below


def index_tree(root: Path, max_nodes: int = MAX_NODES) -> TreeIndex:
    """Index the directory `root`.

    Raises:
        NotADirectoryError: `root` is not a directory.
        ValueError: the tree has more than `max_nodes` files and directories.
    """
    if not root.is_dir():
        raise NotADirectoryError(root)
    nodes = {ROOT: Node(ROOT, root.name, "directory")}
    for node in _walk(root, ROOT):
        if len(nodes) >= max_nodes:
            raise ValueError(f"the tree has more than {max_nodes} files and directories")
        nodes[node.path] = node
    children: defaultdict[str, list[str]] = defaultdict(list)
    by_extension: defaultdict[str, list[Node]] = defaultdict(list)
    by_name: defaultdict[str, list[Node]] = defaultdict(list)
    for path, node in nodes.items():
        by_name[node.name].append(node)
        if node.type == "file":
            by_extension[node.extension].append(node)
        if path != ROOT:
            children[str(PurePosixPath(path).parent)].append(path)
    return TreeIndex(
        nodes=nodes,
        children={path: tuple(below) for path, below in children.items()},
        by_extension={extension: tuple(found) for extension, found in by_extension.items()},
        by_name={name: tuple(found) for name, found in by_name.items()},
        indexed_at=datetime.now(UTC),
    )


def _walk(root: Path, path: str) -> Iterator[Node]:
    """Yield what is in one directory, in the order of names, each directory before what is in it."""
    try:
        entries = sorted(os.scandir(root / path), key=lambda entry: entry.name)
    except PermissionError:
        return
    for entry in entries:
        below = entry.name if path == ROOT else f"{path}/{entry.name}"
        if entry.is_symlink():
            continue
        if entry.is_dir():
            if not ignored_directory(entry.name):
                yield Node(below, entry.name, "directory")
                yield from _walk(root, below)
        elif entry.is_file() and not ignored_file(entry.name):
            extension = PurePosixPath(entry.name).suffix.removeprefix(".").lower()
            yield Node(below, entry.name, "file", entry.stat().st_size, extension)
