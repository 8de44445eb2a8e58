"""What a fault may do to the connection underneath HTTP; the server provides it, in the ASGI scope.

An application called in process has no wire, and refuses the faults that need one.
"""

from typing import Protocol

WIRE = "bridge_tasks.sandbox.wire"
"""The key of the ASGI scope under which a `Wire` is found."""


class Wire(Protocol):
    """The sockets of one server. To be called from its event loop."""

    def reset(self, client: tuple[str, int]) -> None:
        """Break a client's connection with a TCP reset."""

    def hang_up(self, client: tuple[str, int]) -> None:
        """Close a client's connection in good order."""

    async def refuse(self, seconds: float) -> None:
        """Refuse new connections for `seconds`, and close the idle ones."""
