"""Both bottoms over real sockets: bounded in time and size, and well again after every failure."""

import io
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore
import httpx
import pytest

from bridge_tasks.resilience.transport import blocking, bottom
from bridge_tasks.resilience.transport.blocking import blocking_bottom
from bridge_tasks.resilience.transport.bottom import SINK, Bottom, LocalFault, Sink, app_bottom, asyncio_bottom
from bridge_tasks.resilience.transport.client import LeanAsyncClient
from bridge_tasks.resilience.transport.deadline import within
from bridge_tasks.sandbox.server import running
from tests.never_suspending import finished
from tests.transports.unwell import unwell

TRY_SECONDS = 0.3
SOON = 2.0
"""What no bounded try may reach, with room for a busy machine."""

Send = Callable[[httpx.Request], Awaitable[httpx.Response]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(unwell) as address:
        yield address


@pytest.fixture(params=["asyncio", "blocking"])
async def send(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Send]:
    """Send through a pool of two connections: a leaked one would soon be missed."""
    small = httpx.Limits(max_connections=2, max_keepalive_connections=2)
    monkeypatch.setattr(bottom, "LIMITS", small)
    monkeypatch.setattr(blocking, "LIMITS", small)
    if request.param == "asyncio":
        exchange = asyncio_bottom().connect()
        yield exchange.handle_async_request
        await exchange.aclose()
        return
    exchange = blocking_bottom().connect()

    async def send_blocking(asked: httpx.Request) -> httpx.Response:
        return finished(exchange.handle_async_request(asked))

    yield send_blocking
    finished(exchange.aclose())


def asked(
    url: str, body: bytes = b"hello", seconds: float = TRY_SECONDS, sink: Sink | None = None
) -> httpx.Request:
    return httpx.Request(
        "POST", url, content=body, extensions={"timeout": {"read": seconds}, **({SINK: sink} if sink else {})}
    )


async def is_well(send: Send, url: str) -> bool:
    response = await send(asked(f"{url}/echo", seconds=10.0))
    return response.content == b"hello"


async def test_a_good_answer_has_been_read_to_its_end(send: Send, url: str) -> None:
    response = await send(asked(f"{url}/echo", b"x" * 1_000_000, seconds=10.0))
    assert response.is_closed
    assert response.content == b"x" * 1_000_000


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/hang", httpx.ReadTimeout),
        ("/drip", httpx.ReadTimeout),
        ("/short", (httpx.RemoteProtocolError, httpx.ReadError)),  # by how the end of its peer arrives
        ("/gzip", httpx.DecodingError),
    ],
)
async def test_each_failure_is_httpx_s_own_in_time_and_leaves_the_pool_healthy(
    path: str, error: type[Exception] | tuple[type[Exception], ...], send: Send, url: str
) -> None:
    # Three times on a pool of two connections: a connection that is not given back would be the last.
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(error):
            await send(asked(f"{url}{path}"))
        assert time.monotonic() - began < SOON
    assert await is_well(send, url)


async def test_a_drip_fed_body_is_cut_at_the_try_s_time_and_not_before(send: Send, url: str) -> None:
    began = time.monotonic()
    with pytest.raises(httpx.ReadTimeout):
        await send(asked(f"{url}/drip"))
    assert TRY_SECONDS <= time.monotonic() - began < SOON


async def test_what_it_takes_to_open_the_pool_is_not_taken_from_the_try_s_time(
    send: Send, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_a_busy_machine() -> ssl.SSLContext:
        time.sleep(TRY_SECONDS)
        return httpx.create_ssl_context(trust_env=False)

    monkeypatch.setattr(bottom, "ssl_context", on_a_busy_machine)
    monkeypatch.setattr(blocking, "ssl_context", on_a_busy_machine)
    assert (await send(asked(f"{url}/echo"))).content == b"hello"


async def test_a_deadline_shorter_than_the_try_cuts_it(send: Send, url: str) -> None:
    began = time.monotonic()
    with within(0.1), pytest.raises(httpx.ReadTimeout):
        await send(asked(f"{url}/hang", seconds=30.0))
    assert time.monotonic() - began < SOON


async def test_an_upload_that_nobody_reads_is_cut(send: Send, url: str) -> None:
    began = time.monotonic()
    with pytest.raises(httpx.TimeoutException):
        await send(asked(f"{url}/hang", b"x" * 20_000_000))
    assert time.monotonic() - began < SOON
    assert await is_well(send, url)


async def test_a_refused_connection_is_a_connect_error(send: Send) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        with pytest.raises(httpx.ConnectError):
            await send(asked(f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/"))


async def test_a_reset_before_the_answer_is_a_read_error_or_a_broken_protocol(send: Send) -> None:
    def hang_up(server: socket.socket) -> None:
        server.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=(server,), daemon=True).start()
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await send(asked(f"http://127.0.0.1:{server.getsockname()[1]}/"))


async def test_something_other_than_http_is_a_broken_protocol(send: Send) -> None:
    def greet(server: socket.socket) -> None:
        with server.accept()[0] as connection:
            connection.sendall(b"220 mail.example.org ESMTP\r\n\r\n")
            while connection.recv(65536):  # until the client has gone: closing on unread bytes would be a reset
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=greet, args=(server,), daemon=True).start()
        with pytest.raises(httpx.RemoteProtocolError):
            await send(asked(f"http://127.0.0.1:{server.getsockname()[1]}/"))


async def test_tls_to_a_plain_server_is_a_connect_error(send: Send, url: str) -> None:
    with pytest.raises(httpx.ConnectError):
        await send(asked(url.replace("http:", "https:"), seconds=5.0))


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/", "/no/host"])
async def test_an_address_that_is_not_of_the_web_is_unsupported(address: str, send: Send) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await send(asked(address))


async def test_an_answer_may_be_as_large_as_the_limit_and_no_larger(
    send: Send, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bottom, "MAX_RESPONSE_BYTES", 1000)
    assert len((await send(asked(f"{url}/bytes/1000"))).content) == 1000
    with pytest.raises(httpx.DecodingError, match="exceeds 1000 bytes"):
        await send(asked(f"{url}/bytes/1001"))
    assert await is_well(send, url)


async def test_a_sink_takes_a_good_body_within_its_own_limit(send: Send, url: str) -> None:
    sink = Sink(io.BytesIO(), limit=500)
    response = await send(asked(f"{url}/bytes/500", sink=sink))
    assert (response.content, sink.file.tell()) == (b"", 500)
    with pytest.raises(httpx.DecodingError, match="exceeds 500 bytes"):
        await send(asked(f"{url}/bytes/501", sink=Sink(io.BytesIO(), limit=500)))


async def test_a_sink_takes_no_complaint(send: Send, url: str) -> None:
    sink = Sink(io.BytesIO(), limit=500)
    response = await send(asked(f"{url}/refused", sink=sink))
    assert (response.content, sink.file.tell()) == (b"too large", 0)


def test_a_coroutine_on_the_blocking_bottom_never_suspends(url: str) -> None:
    exchange = blocking_bottom().connect()
    coroutine = exchange.handle_async_request(asked(f"{url}/echo"))
    with pytest.raises(StopIteration) as end:
        coroutine.send(None)
    assert end.value.value.content == b"hello"
    finished(exchange.aclose())


def test_the_blocking_bottom_sleeps_without_suspending() -> None:
    began = time.monotonic()
    finished(blocking_bottom().sleep(0.02))  # type: ignore[arg-type] # an Awaitable that is a coroutine
    assert time.monotonic() - began >= 0.02


def test_each_socket_operation_of_a_try_gets_what_the_try_has_left() -> None:
    given: list[float | None] = []

    class Socket(httpcore.NetworkStream):
        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            given.append(timeout)
            return b"x" * min(1, max_bytes)

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            assert buffer
            given.append(timeout)

    stream = blocking._BoundedStream(Socket())
    token = blocking._try_ends.set(time.monotonic() + 10.0)
    try:
        stream.read(1, timeout=30.0)
        stream.write(b"x", timeout=30.0)
        stream.read(1, timeout=None)
        stream.read(1, timeout=5.0)
        blocking._try_ends.set(time.monotonic())
        with pytest.raises(httpcore.ReadTimeout):
            stream.read(1, timeout=30.0)
    finally:
        blocking._try_ends.reset(token)
    assert given == [pytest.approx(10.0, abs=SOON)] * 3 + [5.0]


def test_16_threads_share_one_blocking_exchange_and_each_gets_its_own_answer(url: str) -> None:
    exchange = blocking_bottom().connect()

    def talk(thread: int) -> list[bytes]:
        said = [f"{thread}:{turn}".encode() for turn in range(20)]
        heard = [finished(exchange.handle_async_request(asked(f"{url}/echo", word, 10.0))) for word in said]
        return [word for word, answer in zip(said, heard, strict=True) if answer.content != word]

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(talk, range(16))) == [[]] * 16
    finished(exchange.aclose())


def test_one_thread_s_deadline_is_not_another_s(url: str) -> None:
    exchange = blocking_bottom().connect()

    def hurried() -> None:
        with within(0.1), pytest.raises(httpx.ReadTimeout):
            finished(exchange.handle_async_request(asked(f"{url}/hang", seconds=10.0)))

    with ThreadPoolExecutor(2) as threads:
        cut = threads.submit(hurried)
        assert finished(exchange.handle_async_request(asked(f"{url}/echo", seconds=10.0))).content == b"hello"
        cut.result()
    finished(exchange.aclose())


@pytest.mark.parametrize("make", [asyncio_bottom, blocking_bottom], ids=["asyncio", "blocking"])
async def test_a_closed_exchange_opens_no_connection_again(url: str, make: Callable[[], Bottom]) -> None:
    exchange = make().connect()
    await exchange.handle_async_request(asked(f"{url}/echo", seconds=10.0))
    await exchange.aclose()
    with pytest.raises(LocalFault, match="closed"):
        await exchange.handle_async_request(asked(f"{url}/echo", seconds=10.0))


def test_a_connection_that_was_being_made_while_the_exchange_was_closed_is_closed_too(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = blocking_bottom().connect()
    connect = httpcore.SyncBackend.connect_tcp
    made: list[socket.socket] = []

    def close_meanwhile(*arguments: Any, **options: Any) -> httpcore.NetworkStream:
        finished(exchange.aclose())
        stream = connect(*arguments, **options)
        made.append(stream.get_extra_info("socket"))
        return stream

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", close_meanwhile)
    with pytest.raises(LocalFault, match="closed"):
        finished(exchange.handle_async_request(asked(f"{url}/echo", seconds=10.0)))
    assert [one.fileno() for one in made] == [-1], "nobody would ever have closed it"


async def test_an_application_in_this_process_is_called_and_bounded_in_the_same_way() -> None:
    exchange = app_bottom(unwell).connect()
    assert (await exchange.handle_async_request(asked("http://in-process/echo"))).content == b"hello"
    with pytest.raises(httpx.ReadTimeout):
        await exchange.handle_async_request(asked("http://in-process/hang", seconds=0.05))
    await exchange.aclose()


async def test_a_crash_of_an_application_in_this_process_is_a_500() -> None:
    async def crash(*_: object) -> None:
        raise RuntimeError("a bug")

    exchange = app_bottom(crash).connect()
    assert (await exchange.handle_async_request(asked("http://in-process/"))).status_code == 500


@pytest.fixture
async def lean() -> AsyncIterator[LeanAsyncClient]:
    async with LeanAsyncClient(asyncio_bottom().connect(), timeout=10.0, user_agent="tests/1") as client:
        yield client


async def test_the_lean_client_follows_no_redirect(lean: LeanAsyncClient, url: str) -> None:
    response = await lean.request("GET", f"{url}/moved")
    assert (response.status_code, response.headers["location"]) == (307, "/echo")


async def test_the_lean_client_sends_json_and_uploads(lean: LeanAsyncClient, url: str) -> None:
    said = await lean.request("POST", f"{url}/echo", json={"name": "naïve", "n": 1})
    assert said.content == '{"name":"naïve","n":1}'.encode()
    assert said.request.headers["content-type"] == "application/json"
    uploaded = await lean.request("POST", f"{url}/echo", files={"file": ("data", b"bytes", "text/plain")})
    assert b'name="file"; filename="data"' in uploaded.content


async def test_the_lean_client_names_itself_and_asks_for_no_compression(lean: LeanAsyncClient, url: str) -> None:
    headers = (await lean.request("GET", f"{url}/echo", params={"a": "b c"}, headers={"X-One": "1"})).request
    assert headers.url.query == b"a=b+c"
    sent = {name: headers.headers[name] for name in ("user-agent", "accept-encoding", "x-one")}
    assert sent == {"user-agent": "tests/1", "accept-encoding": "identity", "x-one": "1"}


async def test_a_closed_lean_client_says_so(url: str) -> None:
    client = LeanAsyncClient(asyncio_bottom().connect(), timeout=1.0, user_agent="tests/1")
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await client.request("GET", url)
