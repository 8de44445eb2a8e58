"""A small request leaves in one piece, a large one in bounded pieces, and an early answer is read all the same."""

import httpcore
import pytest

from bridge_tasks.resilience.transport.blocking import PIECE, BlockingExchange, _BoundedStream
from tests.never_suspending import finished
from tests.transports.test_bottoms import asked

ANSWER = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"


class Wire(httpcore.NetworkStream):
    """Remembers what was sent; answers at the first read."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.sent: list[bytes] = []
        self._trouble = trouble
        self._answer = ANSWER

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        assert timeout is not None
        if self._trouble is not None:
            raise self._trouble
        self.sent.append(bytes(buffer))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        assert timeout is not None
        answer, self._answer = self._answer[:max_bytes], self._answer[max_bytes:]
        return answer

    def close(self) -> None:
        self.sent.append(b"closed")


def send(wire: Wire, body: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", lambda *_, **__: wire)
    exchange = BlockingExchange()
    return finished(exchange.handle_async_request(asked("http://service/stamp", body, seconds=10.0))).status_code


@pytest.mark.parametrize("body", [b"", b"hello", b"x" * (PIECE // 2)], ids=["empty", "small", "half"])
def test_a_small_request_leaves_in_one_piece(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    assert send(wire, body, monkeypatch) == 413
    (whole,) = wire.sent
    assert whole.startswith(b"POST /stamp HTTP/1.1\r\n")
    assert whole.endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, 3 * PIECE + 7])
def test_a_large_one_leaves_whole_and_in_bounded_pieces(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wire, body = Wire(), bytes(number % 251 for number in range(size))
    assert send(wire, body, monkeypatch) == 413
    assert b"".join(wire.sent).endswith(b"\r\n\r\n" + body)
    assert max(map(len, wire.sent)) <= PIECE
    assert len(wire.sent) <= size // PIECE + 2


@pytest.mark.parametrize("body", [b"hello", b"x" * (3 * PIECE)], ids=["small", "large"])
def test_an_answer_that_came_before_the_request_was_taken_is_read(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(Wire(httpcore.WriteError("broken pipe")), body, monkeypatch) == 413


def test_what_a_failed_request_left_behind_is_never_sent() -> None:
    wire = Wire(httpcore.WriteError("broken pipe"))
    stream = _BoundedStream(wire)
    stream.write(b"lost")
    stream.read(10, 1.0)
    wire._trouble = None
    stream.read(10, 1.0)
    assert wire.sent == []
