"""Content at an address: fetched from allowed hosts only, without redirects, within a size and a time."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge_tasks import events
from bridge_tasks.content import ContentStore, vet
from bridge_tasks.driver import drive
from bridge_tasks.errors import ContentUnavailable, InvalidRequest, ServiceUnavailableError
from bridge_tasks.models.content import UrlContent, describe
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.bottom import Bottom
from bridge_tasks.resilience.transport.deadline import within
from bridge_tasks.sandbox.server import running
from bridge_tasks.settings import ContentSettings
from tests.content.hosts import Host

LIMIT = 5000
SETTINGS = ContentSettings(hosts=("127.0.0.1",), max_bytes=LIMIT)


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


@pytest.fixture(scope="module")
def url(host: Host) -> Iterator[str]:
    with running(host) as url:
        yield url


@pytest.fixture
def store(host: Host) -> Iterator[ContentStore]:
    """The real bottom, except that pauses between tries take no time."""
    host.asked.clear()
    bottom = blocking_bottom()
    store = ContentStore(SETTINGS, NoRedis(), Bottom(connect=bottom.connect, sleep=_at_once))
    yield store
    drive(store.close())


class NoRedis:
    async def execute_command(self, *arguments: Any) -> Any:
        raise AssertionError(f"content at an address needs no Redis: {arguments}")


async def _at_once(seconds: float) -> None:
    del seconds


def fetched(store: ContentStore, address: str) -> bytes:
    with drive(store.open(UrlContent(url=address))) as opened:
        raw = opened.file.read()
        assert opened.size == len(raw)
        return raw


def test_content_on_an_allowed_host_is_fetched(store: ContentStore, url: str) -> None:
    assert fetched(store, f"{url}/ok") == b"hello"


def test_content_is_taken_up_to_the_limit_and_cut_off_while_it_streams(store: ContentStore, url: str) -> None:
    assert fetched(store, f"{url}/bytes/{LIMIT}") == b"x" * LIMIT
    for path in (f"/bytes/{LIMIT + 1}", "/endless"):
        with pytest.raises(ContentUnavailable, match=f"exceeds {LIMIT} bytes"):
            fetched(store, url + path)
    assert fetched(store, f"{url}/ok") == b"hello"


def test_a_redirect_is_not_followed_even_to_the_same_host(store: ContentStore, url: str, host: Host) -> None:
    with pytest.raises(ContentUnavailable, match="redirect, which is not followed"):
        fetched(store, f"{url}/moved")
    assert host.asked == ["/moved"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 500, 501])
def test_a_refusal_is_final_tried_once_and_tells_the_status_but_not_the_host_s_words(
    store: ContentStore, url: str, host: Host, status: int
) -> None:
    with pytest.raises(ContentUnavailable, match=f"HTTP {status}$"):
        fetched(store, f"{url}/status/{status}")
    assert len(host.asked) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_host_that_asks_for_patience_is_tried_three_times_and_may_be_tried_later(
    store: ContentStore, url: str, host: Host, status: int
) -> None:
    with pytest.raises(ServiceUnavailableError) as trouble:
        fetched(store, f"{url}/status/{status}")
    assert (trouble.value.retryable, trouble.value.status) == (True, status)
    assert len(host.asked) == 3


def test_a_moment_s_trouble_is_not_noticed(store: ContentStore, url: str, facts: list[events.Event]) -> None:
    assert fetched(store, f"{url}/once/503") == b"hello"
    assert [event.cause for event in facts if isinstance(event, events.RetryScheduled)] == ["HTTP 503"]


def test_a_body_that_comes_too_slowly_ends_with_the_work_s_deadline(store: ContentStore, url: str) -> None:
    began = time.monotonic()
    with within(0.3), pytest.raises(ServiceUnavailableError, match="out of reach"):
        fetched(store, f"{url}/drip")
    assert time.monotonic() - began < 3
    assert fetched(store, f"{url}/ok") == b"hello"


def test_a_compressed_answer_is_refused(store: ContentStore, url: str) -> None:
    with pytest.raises(ContentUnavailable, match="compressed"):
        fetched(store, f"{url}/gzip")


def test_a_host_that_is_down_may_be_tried_later(store: ContentStore) -> None:
    with running(Host()) as gone:
        pass
    with pytest.raises(ServiceUnavailableError, match="out of reach"):
        fetched(store, f"{gone}/ok")


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:1/",
        "http://127.0.0.1.example/",
        "http://example/?127.0.0.1",
        "http://[::1]/",
        "http://0177.1/",
    ],
)
def test_a_host_that_is_not_allowed_is_refused_before_anything_is_sent(
    store: ContentStore, facts: list[events.Event], address: str
) -> None:
    with pytest.raises(InvalidRequest, match="not on an allowed host") as refused:
        fetched(store, address)
    assert refused.value.field == "content.url"
    assert facts == []


def test_a_host_is_allowed_whatever_its_case() -> None:
    vet(UrlContent(url="HTTP://Docs.Example/a"), ContentSettings(hosts=("docs.example",)))


@given(before=st.text(max_size=5), after=st.text(max_size=60))
def test_whatever_stands_around_it_only_the_allowed_host_itself_passes(before: str, after: str) -> None:
    try:
        content = UrlContent(url=f"http://{before}127.0.0.1{after}")
        vet(content, SETTINGS)
    except (ValidationError, InvalidRequest):
        return
    assert httpx.URL(content.url).host == "127.0.0.1"  # what would really be called


@given(
    where=st.sampled_from("\\@#?/:%\t"), rest=st.sampled_from(["evil.example", "evil.example/", "evil.example:80"])
)
def test_no_separator_makes_two_readers_of_an_address_disagree(where: str, rest: str) -> None:
    for address in (f"127.0.0.1{where}{rest}", f"{rest}{where}127.0.0.1", f"127.0.0.1{where}@{rest}"):
        try:
            content = UrlContent(url=f"http://{address}")
            vet(content, SETTINGS)
            called = httpx.URL(content.url).host
        except (ValidationError, InvalidRequest, httpx.InvalidURL):
            continue
        assert called == "127.0.0.1"


def test_a_description_has_neither_query_nor_port_nor_fragment() -> None:
    content = UrlContent(url="https://127.0.0.1:8443/a/b.md?token=hunter2#hunter2")
    assert describe(content) == "https://127.0.0.1/a/b.md"
