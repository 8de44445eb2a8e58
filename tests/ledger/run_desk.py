"""A run as its submitter and its workers use it, in one hand."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from bridge_tasks.driver import BlockingRedis
from bridge_tasks.ledger.packing import FileOutcome, RunFile
from bridge_tasks.ledger.run_records import RunOptions, RunProgress
from bridge_tasks.ledger.runs import Added, RunLedger, alone_job, chunk_job
from tests.ledger.conftest import Desk
from tests.never_suspending import finished


@dataclass
class RunDesk(Desk):
    """Its ledger, its queue, and its one run."""

    name: str = field(default_factory=lambda: str(uuid4()))
    options: RunOptions = field(default_factory=lambda: RunOptions("docs"))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.runs = RunLedger(BlockingRedis(self.client), self.settings)
        finished(self.runs.create(self.name, "night-7", "files", self.options))

    def add(self, number: int, files: int = 3, *, send: bool = True, folder: str = "") -> Added:
        paths = [f"/srv/{folder or self.name}/{number}-{index}" for index in range(files)]
        some = [RunFile({"kind": "file", "path": path, "size": 1}, path, "docs") for path in paths]
        return self.add_files(number, some, send=send)

    def add_files(self, number: int, files: Sequence[RunFile], *, send: bool = True) -> Added:
        added = finished(self.runs.add(self.name, number, files, f"digest {number}"))
        if send:
            self.put(chunk_job(self.name, number), item=f"{self.name}|{number}|")
        return added

    def settle(self, number: int, *outcomes: FileOutcome) -> bool:
        return finished(self.runs.settle(self.name, number, outcomes))

    def send_alone(self, number: int, index: int) -> str:
        name = alone_job(self.name, number, index)
        self.put(name, item=f"{self.name}|{number}|{index}")
        return name

    def stop(self) -> bool:
        return finished(self.runs.stop(self.name))

    def seal(self) -> None:
        finished(self.runs.seal(self.name))

    @property
    def progress(self) -> RunProgress:
        found = finished(self.runs.progress(self.name))
        assert found is not None
        return found

    def outcomes(self, number: int) -> list[FileOutcome]:
        return [outcome for _, outcome in finished(self.runs.outcomes(self.name, number))]

    def agree(self) -> None:
        """The counts are those of the files."""
        at = self.progress
        ended = [one for number in range(at.chunks) for one in self.outcomes(number) if one.state is not None]
        states = Counter(one.state for one in ended)
        told = (at.succeeded, at.failed, at.cancelled, at.degraded)
        assert told == (
            states["succeeded"],
            states["failed"],
            states["cancelled"],
            sum(one.degraded for one in ended),
        )
        assert at.done == ((at.sealed or at.stopped) and len(ended) == at.total)
