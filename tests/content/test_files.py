"""Files: read only under the allowed roots, whatever links, races and names are made to lead elsewhere."""

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge_tasks.content import file_content, vet
from bridge_tasks.content.files import open_file
from bridge_tasks.content.opened import Opened
from bridge_tasks.errors import ContentUnavailable, InvalidRequest
from bridge_tasks.models.content import FileContent
from bridge_tasks.settings import ContentSettings

LIMIT = 1000
NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "inner").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.txt").write_text("secret")
    (tmp_path / "root" / "inner" / "a.txt").write_text("hello")
    return (tmp_path / "root").resolve()


@pytest.fixture
def settings(root: Path) -> ContentSettings:
    return ContentSettings(roots=(str(root),), max_bytes=LIMIT)


def read(opened: Opened) -> bytes:
    with opened:
        return opened.file.read()


def refused(path: str | Path, settings: ContentSettings) -> str:
    with pytest.raises(InvalidRequest) as refusal:
        file_content(path, settings)
    assert refusal.value.field.startswith("content.")
    return refusal.value.reason


def test_a_file_under_a_root_is_referred_to_with_its_size_and_read(root: Path, settings: ContentSettings) -> None:
    content = file_content(root / "inner" / "a.txt", settings)

    file = root / "inner" / "a.txt"
    assert content == FileContent(path=str(file), size=5, modified=file.stat().st_mtime_ns)
    assert read(open_file(content, settings)) == b"hello"


def test_without_roots_nothing_may_be_read(root: Path) -> None:
    assert "BRIDGE_CONTENT__ROOTS is empty" in refused(root / "inner" / "a.txt", ContentSettings())


def test_a_link_inside_the_root_is_followed_and_named_by_what_it_leads_to(
    root: Path, settings: ContentSettings
) -> None:
    (root / "link").symlink_to(root / "inner" / "a.txt")
    assert file_content(root / "link", settings).path == str(root / "inner" / "a.txt")


@pytest.mark.parametrize(
    ("name", "target", "asked"),
    [
        ("file", "../outside/a.txt", "file"),
        ("directory", "../outside", "directory/a.txt"),
        ("twice", "inner/../../outside", "twice/a.txt"),
        ("absolute", "/etc", "absolute/hostname"),
    ],
)
def test_a_link_that_leads_out_is_refused_when_it_is_vetted_and_when_it_is_opened(
    root: Path, settings: ContentSettings, name: str, target: str, asked: str
) -> None:
    (root / name).symlink_to(target)
    content = FileContent(path=str(root / asked))

    for act in (vet, open_file):
        with pytest.raises(InvalidRequest, match="outside the allowed roots") as refusal:
            act(content, settings)
        assert refusal.value.field == "content.path"


def test_a_root_may_itself_be_a_link(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    settings = ContentSettings(roots=(str(root.parent / "alias"),))
    assert read(open_file(FileContent(path=str(root.parent / "alias" / "inner" / "a.txt")), settings)) == b"hello"


def test_a_root_s_name_as_a_prefix_is_not_the_root(root: Path, settings: ContentSettings) -> None:
    beside = root.parent / "root-of-others"
    beside.mkdir()
    (beside / "a.txt").write_text("secret")
    assert "outside" in refused(beside / "a.txt", settings)


@given(steps=st.lists(st.sampled_from(["..", ".", "inner", "a.txt", "out", "back", ""]), max_size=8))
def test_no_walk_of_names_dots_and_links_reads_what_is_outside(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    top = tmp_path_factory.getbasetemp() / "walks"
    root = top / "root"
    if not top.exists():
        (root / "inner").mkdir(parents=True)
        (top / "a.txt").write_text("secret")
        (root / "a.txt").write_text("hello")
        (root / "inner" / "a.txt").write_text("hello")
        (root / "out").symlink_to(top)
        (root / "inner" / "back").symlink_to("..")
    settings = ContentSettings(roots=(str(root),))
    content = FileContent(path="/".join([str(root), *steps]))

    try:
        vet(content, settings)
        got = read(open_file(content, settings))
    except (InvalidRequest, ContentUnavailable):
        return
    assert got == b"hello"


@pytest.mark.parametrize("swapped", ["the file", "its directory"])
def test_a_link_swapped_in_between_the_look_and_the_opening_reads_nothing_outside(
    root: Path, settings: ContentSettings, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    path = root / "inner" / "a.txt"
    content = file_content(path, settings)
    really_open = os.open

    def swap_then_open(name: str | os.PathLike[str], flags: int) -> int:
        """What an attacker would do at the worst moment: the path was resolved, and is not open yet."""
        if swapped == "the file":
            path.unlink()
            path.symlink_to(root.parent / "outside" / "a.txt")
        else:
            path.parent.rename(root / "moved")
            path.parent.symlink_to(root.parent / "outside")
        return really_open(name, flags)

    monkeypatch.setattr(os, "open", swap_then_open)
    with pytest.raises((InvalidRequest, ContentUnavailable)):
        open_file(content, settings)


@pytest.mark.parametrize("instead", ["another file", "nothing"])
def test_a_file_replaced_or_removed_while_it_is_opened_is_not_read(
    root: Path, settings: ContentSettings, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    path = root / "inner" / "a.txt"
    content = file_content(path, settings)
    really_open = os.open

    def open_then_swap(name: str | os.PathLike[str], flags: int) -> int:
        descriptor = really_open(name, flags)
        path.unlink()
        if instead == "another file":
            path.write_text("other")
        return descriptor

    monkeypatch.setattr(os, "open", open_then_swap)
    with pytest.raises(ContentUnavailable, match="was moved while it was opened"):
        open_file(content, settings)


@pytest.mark.parametrize(("written", "size"), [("hello, world", 12), ("hi", 2), ("", 0)])
def test_a_file_that_grew_or_shrank_since_the_job_was_made_is_not_stamped_as_what_it_was(
    root: Path, settings: ContentSettings, written: str, size: int
) -> None:
    path = root / "inner" / "a.txt"
    content = file_content(path, settings)
    path.write_text(written)

    with pytest.raises(ContentUnavailable, match="has changed since the job was made"):
        open_file(content, settings)
    assert len(read(open_file(FileContent(path=str(path)), settings))) == size


def test_a_named_pipe_is_refused_without_waiting_for_its_writer(root: Path, settings: ContentSettings) -> None:
    os.mkfifo(root / "pipe")

    assert refused(root / "pipe", settings) == "is not a regular file"
    with pytest.raises(ContentUnavailable, match="not a regular file"):
        open_file(FileContent(path=str(root / "pipe")), settings)


def test_directories_and_devices_are_refused(root: Path, settings: ContentSettings) -> None:
    devices = ContentSettings(roots=("/dev",))

    assert refused(root / "inner", settings) == "is not a regular file"
    assert refused("/dev/null", devices) == "is not a regular file"
    for path, allowed in ((root / "inner", settings), (Path("/dev/zero"), devices)):
        with pytest.raises(ContentUnavailable, match="not a regular file"):
            open_file(FileContent(path=str(path)), allowed)


def test_a_missing_file_is_refused_early_and_unavailable_late(root: Path, settings: ContentSettings) -> None:
    assert refused(root / "missing", settings) == "does not exist"
    assert refused(root / "inner" / "a.txt" / "below", settings) == "does not exist"
    with pytest.raises(ContentUnavailable, match="does not exist"):
        open_file(FileContent(path=str(root / "missing")), settings)


def test_a_link_to_itself_is_refused(root: Path, settings: ContentSettings) -> None:
    (root / "loop").symlink_to(root / "loop")

    assert refused(root / "loop", settings) == "cannot be opened"
    with pytest.raises(ContentUnavailable, match="cannot be opened"):
        open_file(FileContent(path=str(root / "loop")), settings)


def test_a_file_is_taken_up_to_the_limit_and_not_a_byte_beyond(root: Path, settings: ContentSettings) -> None:
    (root / "full").write_bytes(b"x" * LIMIT)
    (root / "over").write_bytes(b"x" * (LIMIT + 1))

    assert len(read(open_file(file_content(root / "full", settings), settings))) == LIMIT
    assert "at most 1000" in refused(root / "over", settings)
    with pytest.raises(ContentUnavailable, match="larger than the 1000 bytes"):
        open_file(FileContent(path=str(root / "over")), settings)


def test_a_producer_that_does_not_share_the_worker_s_disk_may_still_send(settings: ContentSettings) -> None:
    elsewhere = ContentSettings(roots=("/no/such/root",))
    vet(FileContent(path="/no/such/root/a.txt", size=3), elsewhere)

    with pytest.raises(InvalidRequest, match="at most 1000"):
        vet(FileContent(path=f"{settings.roots[0]}/a.txt", size=LIMIT + 1), settings)


@pytest.mark.parametrize("name", [b"nul\0", b"\xff\xfe", b"line\nbreak", b"\x1b[31m"])
def test_names_that_no_message_can_carry_are_refused(root: Path, settings: ContentSettings, name: bytes) -> None:
    if b"\0" not in name:
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_text("x")
    assert refused(os.fsdecode(os.fsencode(root) + b"/" + name), settings)


@given(path=st.text(max_size=40))
def test_a_path_either_becomes_a_reference_to_that_very_path_or_is_refused(path: str) -> None:
    try:
        assert FileContent(path=path).path == path
    except ValidationError:
        return
    assert path.startswith("/")
    assert path.isprintable() or not any(ord(char) < 32 for char in path)


def test_a_refused_file_leaves_no_descriptor_open(root: Path, settings: ContentSettings) -> None:
    (root / "over").write_bytes(b"x" * (LIMIT + 1))
    free = os.dup(0)  # the lowest number that is free
    os.close(free)

    for path in (root / "over", root / "inner"):
        with pytest.raises(ContentUnavailable):
            open_file(FileContent(path=str(path)), settings)
    again = os.dup(0)
    os.close(again)
    assert again == free


def test_what_this_user_may_not_read_is_refused_early_and_unavailable_late() -> None:
    with tempfile.TemporaryDirectory() as root:  # pytest's own are closed to others, and this is about one file
        Path(root).chmod(0o755)
        closed = Path(root, "closed.txt")
        closed.write_text("secret")
        closed.chmod(0)
        assert tried_by_nobody(root) == [
            "InvalidRequest content.path: is not readable",
            "ContentUnavailable /closed.txt is not readable",
        ]


def tried_by_nobody(root: str) -> list[str]:
    """Vet and open `closed.txt`. Root can read everything, so a child that is nobody has to try."""
    script = textwrap.dedent(
        """
        import os, sys
        from bridge_tasks.content.allowed import vet
        from bridge_tasks.content.files import open_file
        from bridge_tasks.errors import BridgeError
        from bridge_tasks.models.content import FileContent
        from bridge_tasks.settings import ContentSettings
        if os.geteuid() == 0:
            os.setgroups([])
            os.setuid(int(sys.argv[2]))
        for act in (vet, open_file):
            try:
                act(FileContent(path=sys.argv[1] + "/closed.txt"), ContentSettings(roots=(sys.argv[1],)))
            except BridgeError as error:
                print(type(error).__name__, str(error).replace(sys.argv[1], ""))
        """
    )
    child = subprocess.run(
        [sys.executable, "-c", script, root, str(NOBODY)], capture_output=True, text=True, check=True
    )
    return child.stdout.splitlines()


@pytest.mark.parametrize(
    ("raw", "limit", "text"),
    [
        ("grüß".encode(), 10, "grüß"),
        ("grüß".encode(), 6, "grüß"),
        (b"", 0, ""),
    ],
)
def test_content_is_text_where_it_is_utf_8_within_the_limit(
    root: Path, settings: ContentSettings, raw: bytes, limit: int, text: str
) -> None:
    (root / "a.bin").write_bytes(raw)
    with open_file(FileContent(path=str(root / "a.bin")), settings) as opened:
        opened.file.read()  # as hashing does before
        assert opened.text(limit) == text
    assert opened.file.closed


@pytest.mark.parametrize(("raw", "limit", "why"), [("grüß".encode(), 5, "6 bytes"), (b"\xff", 10, "not UTF-8")])
def test_content_that_is_no_text_within_the_limit_says_why(
    root: Path, settings: ContentSettings, raw: bytes, limit: int, why: str
) -> None:
    (root / "a.bin").write_bytes(raw)
    with (
        open_file(FileContent(path=str(root / "a.bin")), settings) as opened,
        pytest.raises(ContentUnavailable, match=why),
    ):
        opened.text(limit)
