"""Sends each try to the next replica in turn, so that a retry meets another one than the try that failed."""

import itertools
from collections.abc import Sequence

import httpx


class BalancingTransport(httpx.AsyncBaseTransport):
    """Rotates over `replicas`: base URLs of which scheme, host and port count. One replica: no work at all."""

    def __init__(self, inner: httpx.AsyncBaseTransport, *, replicas: Sequence[httpx.URL]) -> None:
        self._inner = inner
        self._turn = itertools.cycle(replicas) if len(replicas) > 1 else None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on to the replica whose turn it is."""
        if self._turn is not None:
            replica = next(self._turn)
            request.url = request.url.copy_with(scheme=replica.scheme, host=replica.host, port=replica.port)
            request.headers["Host"] = replica.netloc.decode("ascii")
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close what is wrapped."""
        await self._inner.aclose()
