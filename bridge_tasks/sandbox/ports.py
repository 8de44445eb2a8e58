"""A port of this machine that is ours from the moment it is chosen, whichever process listens on it in the end.

The kernel gives a port that a socket is bound to neither to a server that takes any port nor to an outgoing
connection, wherever its range for those lies. And Linux lets a second socket listen there, if the first does not
and both have set SO_REUSEADDR, as servers do. So one socket keeps the port and never listens.
"""

import socket
import sys

HOST = "127.0.0.1"


class HeldPort:
    """A port that is kept for whoever is told its number; 0 takes a free one.

    Where only one socket can have a port (not on Linux), it is let go at once: be ready to be told it is in use.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, number: int = 0, host: str = HOST) -> None:
        self._socket = bound(host, number)
        self.number: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    def release(self) -> None:
        """Let others have it; may be repeated."""
        self._socket.close()


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, and does not listen yet.

    Raises:
        OSError: the port is taken.
    """
    # asyncio turns Nagle's algorithm off only on sockets that name their protocol; with it, answers take 40 ms.
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
    except OSError:
        opened.close()
        raise
    return opened


def is_free(port: int) -> bool:
    """Tell whether nobody listens on a port of this machine; the next moment, somebody may."""
    try:
        bound(HOST, port).close()
    except OSError:
        return False
    return True
