import os
import shutil
import socket
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.cli.files import expand
from bridge_tasks.errors import InvalidRequest
from bridge_tasks.sandbox.tree_index import index_tree
from tests.cli.command import unprivileged


def made(top: Path, *names: str) -> Path:
    for name in names:
        file = top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return top


def names(top: Path, *, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
    return [found.path.relative_to(top).as_posix() for found in expand([top], include, exclude)]


def test_a_directory_means_its_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    made(tmp_path, "b.txt", "a/z.txt", "a/b/c.txt", ".hidden", "a.txt")
    assert names(tmp_path) == [".hidden", "a/b/c.txt", "a/z.txt", "a.txt", "b.txt"]


@pytest.mark.parametrize(
    "name",
    [
        *(".git/config", ".hg/store", ".svn/entries", ".bzr/README", "sub/.git/HEAD"),
        *(
            "__pycache__/a.txt",
            ".venv/bin/python",
            "venv/lib.py",
            "node_modules/x/index.js",
            ".tox/log",
            ".nox/log",
        ),
        *(".mypy_cache/a", ".pytest_cache/a", ".ruff_cache/a", ".eggs/a", "mine.egg-info/PKG-INFO"),
        *("a.pyc", "a.pyo", "a.so", "liba.so.1.2", "a.o", "a.a", "A.class", "a.dll", "a.exe", ".bridge.env"),
    ],
)
def test_what_a_machine_made_is_left_out_of_a_directory(name: str, tmp_path: Path) -> None:
    made(tmp_path, name, "kept.py")
    assert names(tmp_path) == ["kept.py"]


@pytest.mark.parametrize("name", ["a.pyc", ".git", "missing", "x" * 5000])
def test_a_file_that_is_named_is_always_taken(name: str, tmp_path: Path) -> None:
    assert [found.path for found in expand([tmp_path / name])] == [tmp_path / name]


def test_the_sandbox_indexes_what_is_stamped(tmp_path: Path) -> None:
    made(
        tmp_path, "a.py", "docs/b.md", ".git/HEAD", "venv/lib.py", "docs/__pycache__/c.txt", "a.pyc", ".bridge.env"
    )
    index = index_tree(tmp_path)
    assert [path for path, node in index.nodes.items() if node.type == "file"] == names(tmp_path)
    assert index.directories == 1


def test_a_directory_that_is_named_is_taken_whatever_its_name(tmp_path: Path) -> None:
    made(tmp_path, "venv/a.py")
    assert names(tmp_path / "venv") == ["a.py"]


def test_links_to_directories_are_not_followed_and_links_to_files_are(tmp_path: Path) -> None:
    made(tmp_path, "a/file.txt")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "a")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a" / "file.txt")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert names(tmp_path) == ["a/file.txt", "link.txt"]


def test_pipes_and_sockets_are_left_out(tmp_path: Path) -> None:
    made(tmp_path, "file")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        assert names(tmp_path) == ["file"]


def test_a_file_that_is_meant_twice_is_taken_once(tmp_path: Path) -> None:
    made(tmp_path, "a/b.txt")
    found = list(expand([tmp_path / "a" / "b.txt", tmp_path, tmp_path / "a" / ".." / "a"]))
    assert [file.path for file in found] == [tmp_path / "a" / "b.txt"]


def test_a_name_that_is_no_text_is_found(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    (tmp_path / name).write_text("")
    assert names(tmp_path) == [name]


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        (("*.py",), (), ["a.py", "docs/conf.py"]),
        (("docs/*.md",), (), ["docs/a.md", "docs/deep/b.md"]),
        (("*.py", "*.md"), ("conf.py",), ["a.py", "docs/a.md", "docs/deep/b.md"]),
        ((), ("docs",), ["a.py", "b.txt"]),
        ((), ("docs/deep", "*.txt"), ["a.py", "docs/a.md", "docs/conf.py"]),
        (("*.PY",), (), []),
    ],
)
def test_globs_are_held_against_the_name_and_the_relative_path(
    include: tuple[str, ...], exclude: tuple[str, ...], taken: list[str], tmp_path: Path
) -> None:
    made(tmp_path, "a.py", "b.txt", "docs/a.md", "docs/conf.py", "docs/deep/b.md")
    assert names(tmp_path, include=include, exclude=exclude) == taken


SUFFIXES = st.sampled_from(["txt", "md", "py"])
STEMS = st.text(string.ascii_lowercase, min_size=1, max_size=4).filter(lambda stem: stem != "venv")
FILES = st.builds(lambda folder, stem, suffix: f"{folder}/{stem}.{suffix}", STEMS, STEMS, SUFFIXES)


@given(files=st.sets(FILES, max_size=8), suffix=SUFFIXES)
def test_including_and_excluding_a_suffix_part_a_directory_in_two(files: set[str], suffix: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        top = made(Path(directory), *files)
        taken, left = names(top, include=(f"*.{suffix}",)), names(top, exclude=(f"*.{suffix}",))
        assert sorted(taken + left) == sorted(files) == sorted(names(top))
        assert all(name.endswith(suffix) for name in taken)


def test_a_directory_that_cannot_be_read_is_not_left_out_in_silence() -> None:
    top = Path(tempfile.mkdtemp())
    try:
        made(top, "secret/file", "file")
        top.chmod(0o755)
        (top / "secret").chmod(0)
        with unprivileged(), pytest.raises(InvalidRequest, match=r"secret cannot be read; leave it out"):
            list(expand([top]))
        with unprivileged():
            assert names(top, exclude=("secret",)) == ["file"]
    finally:
        (top / "secret").chmod(0o700)
        shutil.rmtree(top)
