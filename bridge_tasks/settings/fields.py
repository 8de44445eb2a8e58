"""What a variable may hold: lists, addresses, names. What is refused is never quoted: it may hold a password."""

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from bridge_tasks import tls
from bridge_tasks.models.content import web_address
from bridge_tasks.places import SCHEME


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _service_url(value: str) -> str:
    return web_address(value).rstrip("/")


def _root(value: str) -> str:
    path = Path(value)
    if not path.is_absolute():
        raise ValueError("must be absolute")
    return str(path.resolve())


def _url_of(*schemes: str) -> AfterValidator:
    """Refuse, without quoting it, what a Redis or AMQP client would trip over with the password in its message."""

    def check(value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url.startswith(SCHEME) and "sentinel" in schemes:
            for one in url.split(";"):
                _parts(one, "sentinel")
            return value
        parts = _parts(url, *schemes)
        return SecretStr(tls.trusting(parts)) if parts.scheme == tls.SCHEME else value

    return AfterValidator(check)


def _parts(url: str, *schemes: str) -> SplitResult:
    if ";" in url:  # kombu would go to the next address with its own transport, whose messages have no records
        raise ValueError("must be one address, and ; in it be escaped: put one name before several servers")
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be a URL: escape special characters in the password") from None
    if parts.scheme not in schemes or not (parts.hostname or parts.path):
        raise ValueError(f"must be a URL that begins with {', '.join(f'{one}://' for one in schemes)}")
    return parts


Urls = Annotated[
    tuple[Annotated[str, AfterValidator(_service_url)], ...],
    NoDecode,
    BeforeValidator(_split),
    Field(min_length=1),
]
Roots = Annotated[tuple[Annotated[str, AfterValidator(_root)], ...], NoDecode, BeforeValidator(_split)]
Services = Annotated[
    tuple[Literal["metadata", "onextree"], ...],
    NoDecode,
    BeforeValidator(_split),
]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Hosts = Annotated[tuple[Annotated[str, AfterValidator(str.lower)], ...], NoDecode, BeforeValidator(_split)]
RedisUrl = Annotated[SecretStr, _url_of("redis", "rediss", "unix", "sentinel")]
BrokerUrl = Annotated[SecretStr, _url_of("redis", "rediss", "sentinel", "amqp", "amqps")]
ResultUrl = Annotated[SecretStr, _url_of("redis", "rediss", "sentinel")]
SigningKeys = Annotated[
    tuple[Annotated[SecretStr, Field(min_length=32)], ...],
    NoDecode,
    BeforeValidator(_split),
]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
