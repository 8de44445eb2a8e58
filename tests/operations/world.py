"""What the operations work with, and the sandbox that tells what they really did."""

import time
from dataclasses import dataclass

from bridge_tasks.operations import Services
from bridge_tasks.resilience.policy.retry import RetryConfig
from bridge_tasks.sandbox.metadata_service import effects_of
from tests.running_service import RunningService

AT_ONCE = RetryConfig(attempts=3, initial=0.0)


@dataclass(frozen=True, slots=True)
class World:
    """The operations' services, and the sandbox behind the one that stamps."""

    services: Services
    service: RunningService
    heeds_keys: bool

    def times(self, file_path: str) -> int:
        """How often the file was really stamped."""
        return sum(one["times"] for one in effects_of(self.service.app).files() if one["file_path"] == file_path)

    def sent(self, end: str) -> int:
        """How many POSTs there were to this endpoint."""
        return sum(one.method == "POST" and one.path.endswith(end) for one in self.service.asked())

    @property
    def looks(self) -> int:
        """How many stamps were looked up."""
        return sum(record.method == "GET" and "/stamp/" in record.path for record in self.service.asked())

    def wait_until_idle(self) -> None:
        """Wait for the requests that nobody waits for any more."""
        deadline = time.monotonic() + 5
        while self.service.controls.records.in_flight:
            assert time.monotonic() < deadline
            time.sleep(0.005)
