"""Whom a `rediss://` address trusts: a server whose certificate was checked. Pure.

Four programs read the same address (redis-py, Celery's broker, its results, Flower), each in its own way; what is
made of it here means the same to all of them. No address is ever part of an error: it may hold a password.
"""

import ipaddress
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

SCHEME: Final = "rediss"
_CERTIFICATES, _NAMES = "ssl_cert_reqs", "ssl_check_hostname"


def trusting(parts: SplitResult) -> str:
    """Return an address that says that the certificate is to be checked: Celery takes none that does not say.

    Only on this machine may it say otherwise: nobody stands between there.

    Raises:
        ValueError: anybody could be the server.
    """
    told = parse_qsl(parts.query)
    if not is_loopback(parts.hostname or ""):
        # Each of them, where one is said twice: the four readers do not agree on which of two counts.
        if any(name == _CERTIFICATES and value != "required" for name, value in told):
            raise ValueError(f"{_CERTIFICATES} must be required: whoever stands between could be the server")
        if any(name == _NAMES and value.lower() != "true" for name, value in told):
            raise ValueError(f"{_NAMES} must be true: any certificate would do for any server")
    if any(name == _CERTIFICATES for name, _ in told):
        return parts.geturl()
    return parts._replace(query=f"{parts.query}&{_CERTIFICATES}=required".lstrip("&")).geturl()


def options(url: str) -> dict[str, Any] | None:
    """Return what an address says of TLS, as keywords of redis-py; None where there is none."""
    parts = urlsplit(url)
    if parts.scheme != SCHEME:
        return None
    told: dict[str, Any] = {name: value for name, value in parse_qsl(parts.query) if name.startswith("ssl_")}
    if _NAMES in told:
        told[_NAMES] = str(told[_NAMES]).lower() != "false"
    return told


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, as far as its name tells."""
    if host.lower() in ("localhost", "ip6-localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
