"""A Redis that speaks TLS only and knows three users: `deploy/redis/users.acl`, with passwords of its own."""

import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bridge_tasks.sandbox.ports import HOST, HeldPort
from bridge_tasks.sandbox.processes import LocalProcess
from tests.needed import lacking
from tests.workers import PATIENCE

USERS = Path(__file__).parents[2] / "deploy" / "redis" / "users.acl"
NAMES = ("worker", "producer", "flower")
ADMIN = "admin"
OLDEST = 7
"""Which has rights to read only, and selectors."""
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
_TOLD = ("username", "reason", "object", "context")


def once() -> Retry:
    """A refusal is an answer: to ask again would only take time, and be one more line in the log of denials."""
    return Retry(NoBackoff(), 0)


def require_programs() -> str:
    """The path of a server with TLS. A developer may lack it; the place where all is tested may not."""
    server = shutil.which("redis-server")
    if server is None or shutil.which("openssl") is None or version(server) < OLDEST:
        lacking("no redis-server 7 with TLS, or no openssl: .ci/redis installs both")
    return server


def version(server: str) -> int:
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    told = re.search(r"v=(\d+)\.", said)
    return int(told[1]) if told else 0


@dataclass(frozen=True, slots=True)
class SecuredRedis:
    """Where it is, and the passwords."""

    port: int
    certificate: Path
    passwords: dict[str, str] = field(repr=False)
    process: LocalProcess

    def url(self, user: str, **options: str) -> str:
        told = urlencode({"ssl_ca_certs": str(self.certificate), **options}, safe="/")
        return f"rediss://{user}:{self.passwords[user]}@{HOST}:{self.port}/0?{told}"

    def client(self, user: str) -> redis.Redis:
        return redis.Redis.from_url(self.url(user), socket_timeout=PATIENCE, retry=once())

    def denied(self) -> list[dict[str, Any]]:
        """What users were denied since this was last told."""
        with self.client(ADMIN) as client:
            log: list[dict[str, Any]] = client.acl_log(128)
            client.acl_log_reset()
        return [{name: entry[name] for name in _TOLD} for entry in log]


def certificate(directory: Path, name: str = "redis") -> tuple[Path, Path]:
    """A certificate of this machine that vouches for itself, and its key."""
    told, key = directory / f"{name}.crt", directory / f"{name}.key"
    names = ("-subj", "/CN=redis", "-addext", f"subjectAltName=IP:{HOST}")
    files = ("-nodes", "-days", "2", "-keyout", str(key), "-out", str(told))
    subprocess.run(["openssl", "req", "-x509", *CURVE, *names, *files], check=True, capture_output=True)
    return told, key


@contextmanager
def secured_redis(directory: Path) -> Iterator[SecuredRedis]:
    """Run it. No password is on its command line, and the file that holds them is its own."""
    server = require_programs()
    told, key = certificate(directory)
    passwords = {name: secrets.token_hex(16) for name in (*NAMES, ADMIN)}
    users = USERS.read_text() + f"user {ADMIN} on >{passwords[ADMIN]} ~* &* +@all\n"
    for name in NAMES:
        users = users.replace(f">{name.upper()}-PASSWORD", f">{passwords[name]}")
    (directory / "users.acl").write_text(users)
    port = HeldPort()
    (directory / "redis.conf").write_text(
        f"port 0\ntls-port {port.number}\nbind {HOST}\ntls-cert-file {told}\ntls-key-file {key}\n"
        f"tls-ca-cert-file {told}\ntls-auth-clients no\naclfile {directory}/users.acl\n"
        f'dir {directory}\nsave ""\nappendonly yes\nmaxmemory-policy noeviction\nacllog-max-len 128\n'
        "enable-debug-command local\n"  # so that it is the user's rights that refuse it
    )
    process = LocalProcess([server, str(directory / "redis.conf")], directory=directory, name="redis")
    try:
        with process:
            process.wait_ready(lambda: "Ready to accept connections" in process.tail(), PATIENCE)
            yield SecuredRedis(port.number, told, passwords, process)
    finally:
        port.release()
