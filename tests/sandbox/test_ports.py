"""A port that is held is nobody else's, but for the one server that is told its number."""

import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from bridge_tasks.sandbox.metadata_service import create_app
from bridge_tasks.sandbox.ports import HeldPort, is_free
from bridge_tasks.sandbox.server import SandboxServer

IP_LOCAL_PORT_RANGE = 51
"""Of Linux, and not yet in Python's socket module: the ports from which a socket's own is chosen."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only one socket can have a port")


@pytest.fixture
def held() -> Iterator[HeldPort]:
    port = HeldPort()
    yield port
    port.release()


def choosing_only(port: HeldPort) -> socket.socket:
    """A socket for which the kernel can choose no other port than this one."""
    chooser = socket.socket()
    try:
        chooser.setsockopt(
            socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", port.number << 16 | port.number)
        )
    except OSError:
        chooser.close()
        pytest.skip("before Linux 6.3 the range is the whole machine's")
    return chooser


def test_nobody_can_bind_it_or_is_given_it(held: HeldPort) -> None:
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", held.number))
    with choosing_only(held) as server, pytest.raises(OSError, match="in use"):
        server.bind(("127.0.0.1", 0))


def test_no_outgoing_connection_is_given_it(held: HeldPort) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere, choosing_only(held) as outgoing:
        with pytest.raises(OSError, match="Cannot assign"):
            outgoing.connect(elsewhere.getsockname())
        held.release()
        outgoing.connect(elsewhere.getsockname())


def test_a_server_that_knows_it_may_listen_there_again_and_again(held: HeldPort) -> None:
    for _ in range(2):
        with socket.create_server(("127.0.0.1", held.number)), socket.socket() as client:
            client.connect(("127.0.0.1", held.number))
            assert not is_free(held.number)
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(("127.0.0.1", held.number))


def test_of_two_servers_that_wish_for_one_port_the_second_is_told_before_it_serves() -> None:
    first = SandboxServer(create_app("service"))
    try:
        with pytest.raises(OSError, match="in use"):
            SandboxServer(create_app("service"), first.port)
    finally:
        first._held.release()
        first._listeners[0].close()
