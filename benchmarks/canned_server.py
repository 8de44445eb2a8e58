"""The fastest honest peer for measuring clients: reads a POST, answers a canned stamp. `python canned_server.py`.

It prints its port and serves until standard input closes. A real service takes longer, and would hide what the
clients cost.
"""

import asyncio
import sys

BODY = (
    b'{"status":"success","data":{"success":true,"stamp_id":"5f0c0e52-6f0f-4f0b-9f5e-0d6c8a4f8e11","file_hash":'
    b'"ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f","namespace":"omninode.services.metadata",'
    b'"version":1,"op_id":null},"error":null,"message":null,"metadata":{"operation":"create_stamp"}}'
)
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
NOT_FOUND = b'HTTP/1.1 404 Not Found\r\ncontent-length: 22\r\n\r\n{"detail":"Not Found"}'


class Canned(asyncio.Protocol):
    """Answers each complete request on a kept connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        self._transport.write(RESPONSE if head.startswith((b"POST /stamp ", b"POST /v1/traces ")) else NOT_FOUND)


async def main() -> None:
    """Serve on a free port of this machine until standard input closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Canned, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    closed = asyncio.Event()
    loop.add_reader(sys.stdin, closed.set)
    await closed.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
