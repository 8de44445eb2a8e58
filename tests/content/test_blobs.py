"""Blobs: bytes that Redis keeps for a while, and what is said when it keeps them no longer, or others."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from bridge_tasks.content import ContentStore
from bridge_tasks.content.store import BLOB_PREFIX
from bridge_tasks.driver import BlockingRedis, drive
from bridge_tasks.errors import BridgeError, ContentUnavailable, InvalidRequest
from bridge_tasks.models.content import BlobContent
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.sandbox.redis import PrivateRedis
from bridge_tasks.settings import ContentSettings

SETTINGS = ContentSettings(max_blob_bytes=1000, blob_ttl=100)


@pytest.fixture(scope="module")
def own_redis() -> Iterator[PrivateRedis]:
    """A Redis that these tests may stop."""
    with PrivateRedis() as server:
        yield server


@pytest.fixture
def client(own_redis: PrivateRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_redis.url, socket_timeout=1) as client:
        client.flushall()
        yield client


@pytest.fixture
def store(client: redis.Redis) -> Iterator[ContentStore]:
    store = ContentStore(SETTINGS, BlockingRedis(client), blocking_bottom())
    yield store
    drive(store.close())


def read(store: ContentStore, blob: BlobContent) -> bytes:
    with drive(store.open(blob)) as opened:
        assert opened.size == blob.size
        return opened.file.read()


@pytest.mark.parametrize("raw", [b"", b"hello", bytes(range(256)), b"x" * 1000])
def test_bytes_put_are_bytes_read(store: ContentStore, raw: bytes) -> None:
    assert read(store, drive(store.put(raw))) == raw


def test_a_blob_s_time_is_limited_and_its_key_is_no_guess(store: ContentStore, client: redis.Redis) -> None:
    first, second = drive(store.put(b"a")), drive(store.put(b"a"))

    assert first.key != second.key
    assert 99_000 < client.pttl(BLOB_PREFIX + first.key) <= 100_000


def test_an_expired_blob_is_unavailable(store: ContentStore, client: redis.Redis) -> None:
    blob = drive(store.put(b"hello"))
    client.pexpireat(BLOB_PREFIX + blob.key, 1)  # its time was over long ago

    with pytest.raises(ContentUnavailable, match="has expired"):
        drive(store.open(blob))


@pytest.mark.parametrize("now", [b"", b"hell", b"hello!"])
def test_a_blob_of_another_size_is_not_what_was_put(store: ContentStore, client: redis.Redis, now: bytes) -> None:
    blob = drive(store.put(b"hello"))
    client.set(BLOB_PREFIX + blob.key, now)

    with pytest.raises(ContentUnavailable, match="not what was put there"):
        drive(store.open(blob))


def test_too_large_a_blob_is_refused_on_both_ways(store: ContentStore, client: redis.Redis) -> None:
    with pytest.raises(InvalidRequest, match="ends at 1000") as refused:
        drive(store.put(b"x" * 1001))
    assert refused.value.field == "content"
    with pytest.raises(InvalidRequest, match="exceeds 1000") as refused:
        drive(store.open(BlobContent(key="0" * 32, size=1001)))
    assert refused.value.field == "content.size"
    assert client.dbsize() == 0


def test_without_redis_a_blob_is_out_of_reach_for_now_and_back_with_it(own_redis: PrivateRedis) -> None:
    client: Any = redis.Redis.from_url(own_redis.url, socket_timeout=1)
    store = ContentStore(SETTINGS, BlockingRedis(client), blocking_bottom())
    blob = drive(store.put(b"hello"))
    own_redis.stop()
    try:
        with pytest.raises(BridgeError) as out_of_reach:
            drive(store.open(blob))
        assert out_of_reach.value.retryable
        with pytest.raises(BridgeError):
            drive(store.put(b"more"))
    finally:
        own_redis.start()

    assert read(store, drive(store.put(b"again"))) == b"again"
    drive(store.close())
    client.close()
