"""Messages of which nobody knows yet that their broker has them, where that is another server than the ledger's.

A record and its message cannot be written in one step there. So the record is written first, and with it the note
that the message is to be sent; who sent it takes the note out. What is left over after a while was sent by nobody,
or is waiting for its time: any worker sends it then. It may have been sent before: a copy is known by its claim.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge_tasks.ledger import keys
from bridge_tasks.ledger.commands import run, text
from bridge_tasks.ledger.envelope import Envelope
from bridge_tasks.ledger.records import MICROSECONDS
from bridge_tasks.resilience.state.shared_redis import RedisCommands, Script

OUTBOX_SENT: Final = Script("outbox_sent", __package__)
_TAKE = Script("outbox_take", __package__)
_MOST = 200
"""Messages taken at a time: they are in memory."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message to be sent: the task's id, the message, and under which time it is in the outbox."""

    id: str
    message: Mapping[str, Any]
    due: int


class Outbox:
    """The outbox of one ledger.

    Args:
        client: where it is.
        hold: seconds for which nobody else sends what somebody is sending.
    """

    def __init__(self, client: RedisCommands, hold: float) -> None:
        self._client = client
        self._hold = int(hold * MICROSECONDS)

    async def take(self) -> list[Unsent]:
        """Take what is to be sent now; each message goes to one who asks."""
        taken = await run(self._client, _TAKE, [keys.OUTBOX], [_MOST, self._hold])
        return [Unsent(text(name), Envelope.loads(raw).message, int(due)) for name, raw, due in taken]

    async def sent(self, name: str, due: int) -> None:
        """Note that the broker has a message."""
        await run(self._client, OUTBOX_SENT, [keys.OUTBOX], [name, due])

    async def waiting(self) -> set[str]:
        """Return the tasks whose messages are in it."""
        return {text(name) for name in await self._client.execute_command("ZRANGE", keys.OUTBOX, 0, -1)}
