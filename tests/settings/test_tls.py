"""An address with TLS has the server's certificate checked, whichever program reads it."""

import ssl
from urllib.parse import urlsplit

import pytest
import redis
from kombu.utils.url import parse_url

from bridge_tasks import settings, tls
from bridge_tasks.errors import ConfigurationError

SECRET = "s3cret-of-redis"
FAR = f"rediss://me:{SECRET}@redis.example:6380/2"
VARIABLES = ("BRIDGE_REDIS_URL", "BRIDGE_BROKER_URL", "BRIDGE_RESULT_BACKEND_URL")


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize(
    "query",
    [
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=optional",
        "ssl_cert_reqs=CERT_NONE",
        "ssl_cert_reqs=required&ssl_cert_reqs=none",
        "ssl_cert_reqs=none&ssl_cert_reqs=required",
        "ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
        "ssl_check_hostname=0",
    ],
)
def test_an_address_that_would_trust_anybody_is_refused_by_name_without_its_password(
    variable: str, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"{FAR}?{query}")
    settings.load.cache_clear()
    with pytest.raises(ConfigurationError, match=f"^{variable}: ssl_") as refused:
        settings.load()
    settings.load.cache_clear()
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs=/ca.pem", "?ssl_cert_reqs=required"])
def test_any_other_has_the_certificate_checked_by_whoever_reads_it(query: str) -> None:
    told = tls.trusting(urlsplit(FAR + query))

    assert told.count("ssl_cert_reqs") == 1
    assert parse_url(told)["ssl"]["ssl_cert_reqs"] is ssl.CERT_REQUIRED
    with redis.Redis.from_url(told) as client:
        connection = client.connection_pool.make_connection()
    assert (connection.cert_reqs, connection.check_hostname) == (ssl.CERT_REQUIRED, True)
    with redis.Redis(host="redis.example", ssl=True, **(tls.options(told) or {})) as client:  # as Flower does
        assert client.connection_pool.make_connection().cert_reqs is ssl.CERT_REQUIRED
    assert told.startswith(FAR), "the password and the database are as they were"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_on_this_machine_nobody_stands_between(host: str) -> None:
    url = f"rediss://{host}:6380/0?ssl_cert_reqs=none"
    assert tls.trusting(urlsplit(url)) == url


def test_what_is_said_of_names_is_a_truth_value() -> None:
    assert tls.options("rediss://localhost/0?ssl_check_hostname=False&a=b") == {"ssl_check_hostname": False}


def test_an_address_without_tls_says_nothing_of_it() -> None:
    assert tls.options("redis://redis.example/0?ssl_cert_reqs=none") is None
