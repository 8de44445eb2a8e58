"""How entries lie in Redis, and that nothing is returned of those that were tampered with."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_tasks.cache.wire import decode, encode

LIMIT = 1 << 20
packed = st.binary(max_size=2000)


@given(packed=packed, refusal=st.booleans(), compress_from=st.integers(0, 3000))
def test_what_was_encoded_decodes(packed: bytes, refusal: bool, compress_from: int) -> None:
    flags, payload = encode("key", packed, refusal=refusal, compress_from=compress_from)
    assert decode("key", flags, payload, LIMIT) == (packed, refusal)


def test_large_answers_are_compressed_where_that_pays() -> None:
    assert encode("key", b"a" * 4095, refusal=False, compress_from=4096)[0] == "ap"
    flags, payload = encode("key", b"a" * 4096, refusal=False, compress_from=4096)
    assert (flags, len(payload) < 100) == ("az", True)
    noise = bytes(range(256))
    assert encode("key", noise, refusal=False, compress_from=0)[0] == "ap"


@given(packed=packed, data=st.data())
def test_a_changed_byte_is_found_out(packed: bytes, data: st.DataObject) -> None:
    flags, payload = encode("key", packed, refusal=False, compress_from=100)
    at = data.draw(st.integers(0, len(payload) - 1))
    changed = payload[:at] + bytes([payload[at] ^ data.draw(st.integers(1, 255))]) + payload[at + 1 :]
    assert decode("key", flags, changed, LIMIT) is None
    assert decode("key", flags, payload[:at], LIMIT) is None


@pytest.mark.parametrize("flags", ["rp", "az", "xx", "", "a", "ap "])
def test_other_flags_than_its_own_do_not_read(flags: str) -> None:
    _, payload = encode("key", b"{}", refusal=False, compress_from=100)
    assert decode("key", flags, payload, LIMIT) is None


def test_an_answer_in_another_question_s_place_does_not_read() -> None:
    flags, payload = encode("key", b"{}", refusal=False, compress_from=100)
    assert decode("another", flags, payload, LIMIT) is None


def test_a_bomb_does_not_go_off() -> None:
    flags, payload = encode("key", b"\0" * (LIMIT + 1), refusal=False, compress_from=0)
    assert len(payload) < LIMIT / 100
    assert decode("key", flags, payload, LIMIT) is None
    assert decode("key", flags, payload, LIMIT + 1) is not None


def test_compressed_data_that_end_early_or_late_do_not_read() -> None:
    whole = zlib.compress(b"a" * 5000)
    for body in (whole[:-1], whole + b"x", b"garbage"):
        payload = zlib.crc32(body, zlib.crc32(b"keyaz")).to_bytes(4, "big") + body
        assert decode("key", "az", payload, LIMIT) is None
