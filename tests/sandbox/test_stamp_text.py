"""A stamp that is written is found again, and cleaning takes out exactly what the contract names."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.models.stamp_text import (
    StampKind,
    attach,
    clean,
    find_stamps,
    has_stamp,
    render_lightweight,
    render_rich,
    without_documented,
)
from bridge_tasks.sandbox.stamping import StampType, hash_text, judge_protocol, stamp_content, validate_content

DIGEST = "a" * 64
TIMESTAMP = "2026-01-02T03:04:05+00:00"
LIGHT = f"# ONEX:uid=u-1_x,hash={DIGEST},ts={TIMESTAMP}"
RICH = render_rich(DIGEST, uid="u", timestamp=TIMESTAMP, file_path="a.py", file_size=3)
DOCUMENTED = f"<!-- METADATA_STAMP:lightweight:blake3:{DIGEST} -->"

plain_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="#<"))
stamp_types: st.SearchStrategy[StampType] = st.sampled_from(["lightweight", "rich"])


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        ("hello", "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"),
        ("Hello, World!", "288a86a79f20a3d6dccdca7713beaed178798296bdfa7913fa2a62d9727bf8f8"),
    ],
)
def test_the_hash_is_plain_blake3(text: str, digest: str) -> None:
    assert hash_text(text) == digest


def test_a_lightweight_stamp_is_one_line_before_the_content() -> None:
    stamp = render_lightweight(DIGEST, uid="u-1_x", timestamp=TIMESTAMP, author="Ada", version="2")

    assert stamp == f"{LIGHT},author=Ada,v=2"
    assert attach(stamp, "lightweight", "text") == f"{LIGHT},author=Ada,v=2\ntext"


def test_a_rich_stamp_is_a_block_after_the_content() -> None:
    stamp = render_rich(
        DIGEST, uid="u", timestamp=TIMESTAMP, file_path=None, file_size=3, content_type="text/plain"
    )

    assert stamp == "\n".join(
        [
            "<!-- ONEX_METADATA_START -->",
            "<!-- ONEX Metadata Stamp",
            "  uid: u",
            f"  hash: {DIGEST}",
            f"  timestamp: {TIMESTAMP}",
            "  protocol_version: 1.0",
            "  file_path: None",
            "  file_size: 3",
            "  content_type: text/plain",
            "  integrity:",
            "    algorithm: BLAKE3",
            f"    hash: {DIGEST}",
            "-->",
            "<!-- ONEX_METADATA_END -->",
        ]
    )
    assert attach(stamp, "rich", "text") == f"text\n\n{stamp}"


def test_stamps_are_found_with_what_they_say_lightweight_first() -> None:
    found = find_stamps(f"{RICH}\ncode {LIGHT} tail\n{DOCUMENTED}")

    assert [(stamp.kind, stamp.hash) for stamp in found] == [
        ("lightweight", DIGEST),
        ("rich", DIGEST),
        ("documented", DIGEST),
    ]
    assert (found[0].uid, found[0].timestamp) == ("u-1_x", TIMESTAMP)
    assert (found[1].uid, found[1].timestamp) == ("u", TIMESTAMP)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (f"{LIGHT}\ncontent", "content"),
        (f"{LIGHT}Z anything at all\ncontent", "content"),
        (f"a\n{LIGHT}\nb", "a\n\nb"),
        (f"code {LIGHT} more\nnext", "code \nnext"),
        (f"content\n\n{RICH}", "content"),
        ("a<!--ONEX_METADATA_START-->x\ny<!--  ONEX_METADATA_END\t-->b", "ab"),
        ("a<!-- ONEX_METADATA_START -->b", "a<!-- ONEX_METADATA_START -->b"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("\n a \t\n", "a"),
        (LIGHT.replace("u-1_x", "u.1") + "\na", LIGHT.replace("u-1_x", "u.1") + "\na"),
        (f"a\n{DOCUMENTED}", f"a\n{DOCUMENTED}"),
        ("a\r\n\r\n\r\nb", "a\r\n\r\n\r\nb"),
    ],
)
def test_cleaning_takes_out_what_the_contract_names(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_the_last_hash_of_a_rich_block_decides_and_none_is_none() -> None:
    first, second = find_stamps(
        "<!-- ONEX_METADATA_START -->\nhash: a\nhash: b\n<!-- ONEX_METADATA_END -->"
        "<!-- ONEX_METADATA_START -->\nuid: a\nhash:\n<!-- ONEX_METADATA_END -->"
    )

    assert (first.hash, second.hash) == ("b", None)


@given(plain_texts)
def test_text_without_markers_has_no_stamp_and_cleaning_it_twice_changes_nothing_more(text: str) -> None:
    assert not has_stamp(text)
    assert clean(clean(text)) == clean(text)


@given(plain_texts, stamp_types)
def test_a_stamped_text_validates_and_still_does_when_stamped_again(text: str, kind: StampType) -> None:
    once = stamp_content(text, kind, {}, "a.txt")
    twice = stamp_content(once.stamped_content, kind, {}, "a.txt")

    assert once.file_hash == twice.file_hash == hash_text(clean(text))
    for stamped, count in ((once, 1), (twice, 2)):
        validation = validate_content(stamped.stamped_content)
        assert validation.is_valid
        assert len(validation.stamps) == count


@given(plain_texts)
def test_a_changed_text_no_longer_validates(text: str) -> None:
    lightweight = stamp_content(text, "lightweight", {}, "a.txt").stamped_content
    rich = stamp_content(text, "rich", {}, "a.txt").stamped_content

    assert not validate_content(f"{lightweight}x").is_valid
    assert not validate_content(f"x{rich}").is_valid


@given(st.text(), st.text(), st.text(), st.text())
def test_a_rendered_stamp_always_reads_back_or_is_refused(
    uid: str, timestamp: str, author: str, version: str
) -> None:
    try:
        stamp = render_lightweight(DIGEST, uid=uid, timestamp=timestamp, author=author, version=version)
    except ValueError:
        return
    (found,) = (each for each in find_stamps(stamp) if each.kind == "lightweight")
    assert (found.hash, found.uid, found.end) == (DIGEST, uid, len(stamp))


@pytest.mark.parametrize("uid", ["", "a b", "a\nb", "ü", "a,b"])
def test_a_uid_outside_the_grammar_is_refused(uid: str) -> None:
    with pytest.raises(ValueError, match="grammar"):
        render_lightweight(DIGEST, uid=uid, timestamp=TIMESTAMP)


def test_a_path_that_would_close_the_block_early_is_refused() -> None:
    with pytest.raises(ValueError, match="grammar"):
        render_rich(DIGEST, uid="u", timestamp=TIMESTAMP, file_path="<!-- ONEX_METADATA_END -->", file_size=0)


def test_a_documented_stamp_covers_the_text_without_it() -> None:
    content = "text"
    stamp = f"<!-- METADATA_STAMP:lightweight:blake3:{hash_text(content)} -->"
    stamped = attach(stamp, "documented", content)

    assert clean(without_documented(stamped)) == content
    assert validate_content(stamped).is_valid
    assert not validate_content(stamped + "more").is_valid


def test_an_expected_hash_must_be_met_as_well() -> None:
    stamped = stamp_content("text", "lightweight", {}, None)

    assert validate_content(stamped.stamped_content, stamped.file_hash).is_valid
    assert not validate_content(stamped.stamped_content, "0" * 64).is_valid


def test_one_stale_stamp_makes_the_whole_text_invalid() -> None:
    fresh = stamp_content("text", "lightweight", {}, None).stamped_content

    validation = validate_content(f"{LIGHT}\n{fresh}")

    assert [checked.is_valid for checked in validation.stamps] == [False, True]
    assert not validation.is_valid


def test_the_protocol_check_knows_every_kind_of_stamp() -> None:
    for content in (LIGHT, RICH, DOCUMENTED):
        assert judge_protocol(content, "O.N.E.v0.1", "default")["compliance_level"] == "full"
    assert judge_protocol("nothing", "O.N.E.v0.1", "default")["compliance_level"] == "none"
    assert judge_protocol(LIGHT, "O.N.E.v0.1", "mine")["recommendations"]


HOSTILE: dict[str, str] = {
    "openings that nothing closes": "<!-- ONEX_METADATA_START -->",
    "openings that never end": "<!-- ONEX_METADATA_START ",
    "spaces in comments": "<!--" + " " * 500,
    "stamps cut short": "# ONEX:uid=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "stamps without a time": "# ONEX:uid=a,hash=" + "b" * 100,
    "documented stamps cut short": "<!-- METADATA_STAMP:" + "a" * 100,
    "newlines": "\n",
    "newlines and spaces": "\n\n ",
    "stamps in a line": LIGHT,
    "regions": "<!-- ONEX_METADATA_START --><!-- ONEX_METADATA_END -->",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_megabyte_of_hostile_text_is_read_in_moments(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    started = time.process_time()

    clean(text)
    find_stamps(text)
    has_stamp(text)

    assert time.process_time() - started < 2.0, "it takes tenths of a second; in quadratic time, minutes"


@pytest.mark.parametrize("kind", ["lightweight", "rich", "documented"])
def test_has_stamp_sees_every_kind(kind: StampKind) -> None:
    stamp = {"lightweight": LIGHT, "rich": RICH, "documented": DOCUMENTED}[kind]

    assert has_stamp(attach(stamp, kind, "content"))
