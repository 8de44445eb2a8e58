"""The HTTP client on top of the transports: an `httpx.AsyncClient` whose `request` takes the short way.

It builds the request from prepared headers and hands it straight to the transport, past the redirects, cookies,
auth and event hooks that calls between services have no use for. What asks for one of those takes httpx's own way.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import httpx
import orjson

from bridge_tasks.errors import InvalidRequest

_JSON = {"Content-Type": "application/json"}
_WITHOUT_BODY = ("GET", "HEAD")


class LeanAsyncClient(httpx.AsyncClient):
    """`httpx.AsyncClient` for JSON and uploads between services."""

    def __init__(self, transport: httpx.AsyncBaseTransport, *, timeout: float, user_agent: str) -> None:
        super().__init__(transport=transport, trust_env=False, timeout=timeout)
        self._lean = transport
        self._fixed = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._seconds = timeout

    async def request(  # type: ignore[override] # httpx's keywords, those that our clients use by name
        self,
        method: str,
        url: httpx.URL | str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        files: Any = None,
        extensions: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> httpx.Response:
        """Send one request; the response has been read when it returns. `others` are httpx's further keywords.

        Raises:
            httpx.TransportError: as the transports say.
            CircuitBreakerError: the circuit is open.
            InvalidRequest: `json` holds what JSON cannot carry.
        """
        if others:
            known = {"headers": headers, "params": params, "json": json, "files": files, "extensions": extensions}
            return await super().request(method, url, **known, **others)
        if self.is_closed:
            raise RuntimeError("the client is closed")
        extensions = {"timeout": {"read": self._seconds}, **(extensions or {})}
        if params or files is not None or (json is None and method not in _WITHOUT_BODY):
            request = httpx.Request(
                method,
                _parsed(url)[0],
                params=params or None,
                headers={**self._fixed, **(headers or {}), **(_JSON if json is not None else {})},
                content=_packed(json) if json is not None else None,
                files=files,
                extensions=extensions,
            )
        else:
            request = self._prepared(method, url, headers or {}, json, extensions)
        return await self._lean.handle_async_request(request)

    def _prepared(
        self,
        method: str,
        url: httpx.URL | str,
        headers: Mapping[str, str],
        json: Any,
        extensions: Mapping[str, Any],
    ) -> httpx.Request:
        """Build what nearly every call is, in a third of the time: httpx encodes each header three times."""
        parsed, host = _parsed(url)
        body = b"" if json is None else _packed(json)
        given = _template(host, self._fixed["User-Agent"], json is not None).copy()
        for name, value in headers.items():
            if self._fixed.get(name) != value:
                value.encode("ascii")  # other letters are refused, as httpx does
                given[name] = value
        if json is not None:
            given["Content-Length"] = str(len(body))
        request = httpx.Request(
            method, parsed, headers=given, stream=httpx.ByteStream(body), extensions=dict(extensions)
        )
        request.read()
        return request


def _packed(json: Any) -> bytes:
    try:
        return orjson.dumps(json)
    except orjson.JSONEncodeError:  # a whole number beyond 64 bits, half a surrogate pair, 255 levels of nesting
        raise InvalidRequest("json", "holds a number or text that JSON cannot carry") from None


@lru_cache(maxsize=256)
def _parsed(text: httpx.URL | str) -> tuple[httpx.URL, str]:
    """Parse once: a client calls the same few addresses for ever (httpx's URLs are immutable)."""
    url = httpx.URL(text)
    return url, url.netloc.decode("ascii")


@lru_cache(maxsize=64)
def _template(host: str, user_agent: str, with_json: bool) -> httpx.Headers:
    """Return the headers that all calls to a host have; to be copied."""
    fixed = {"Host": host, "User-Agent": user_agent, "Accept-Encoding": "identity"}
    return httpx.Headers({**fixed, **_JSON} if with_json else fixed)
