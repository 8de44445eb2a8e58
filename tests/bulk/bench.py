"""One run at a worker's bench: its files, its one chunk, and what is asked of the services for it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from bridge_tasks import bulk, correlation, idempotency
from bridge_tasks.content import file_content
from bridge_tasks.idempotency import Effect
from bridge_tasks.ledger.packing import FileOutcome, RunFile
from bridge_tasks.ledger.run_records import RunOptions
from bridge_tasks.models.requests import StampChunk
from bridge_tasks.models.stamping import ChunkStamped
from bridge_tasks.operations import Services
from bridge_tasks.sandbox.metadata_service import effects_of
from bridge_tasks.settings import ContentSettings
from tests.clients.stamping_jobs import new_text
from tests.ledger.run_desk import RunDesk
from tests.never_suspending import finished
from tests.running_service import RunningService


@dataclass
class Bench:
    """A run of one chunk, and the worker that stamps it."""

    services: Services
    desk: RunDesk
    stamping: RunningService
    tree: RunningService
    directory: Path
    alone: list[tuple[RunFile, int]] = field(default_factory=list)
    effect: Effect = field(init=False)

    def __post_init__(self) -> None:
        self.effect = Effect(self.desk.name)

    def file(self, name: str, text: str | bytes | None = None, *, context: str = "docs") -> RunFile:
        """Write a file, and refer to it as it is now."""
        path = self.directory / name
        raw = text if isinstance(text, bytes) else (text or f"{new_text()}\n").encode()
        path.write_bytes(raw)
        content = file_content(path, ContentSettings(roots=(str(self.directory),)))
        return RunFile(content.model_dump(mode="json", exclude_none=True), content.path, context)

    def add(self, *files: RunFile) -> None:
        """Make them the run's one chunk, as the submitter does."""
        before = finished(self.desk.runs.before(files))
        known = [replace(file, before=was) for file, was in zip(files, before, strict=True)]
        self.desk.add_files(0, known)
        self.desk.seal()

    def stamp(self, *, again: bool = False) -> ChunkStamped:
        """Stamp the chunk, as a worker does for the first time, or `again`."""
        request = StampChunk(run=self.desk.name, number=0)
        effect = self.effect.again() if again else self.effect
        with correlation.bound("night-7"), idempotency.bound(effect):
            return finished(bulk.stamp_chunk(self.services, self.desk.runs, request, self.hands))

    @property
    def hands(self) -> bulk.Hands:
        return bulk.Hands(self.send_alone, lambda count: [index for _, index in self.alone if index < count])

    def send_alone(self, file: RunFile, index: int, options: RunOptions) -> None:
        assert options == self.desk.options
        self.alone.append((file, index))

    @property
    def outcomes(self) -> list[FileOutcome]:
        self.desk.agree()
        return self.desk.outcomes(0)

    @property
    def states(self) -> list[str | None]:
        return [one.state for one in self.outcomes]

    def times(self, file: RunFile) -> int:
        """How often a file was really stamped."""
        log = effects_of(self.stamping.app).files()
        return sum(int(one["times"]) for one in log if one["file_path"] == file.label)

    def sent(self, end: str) -> int:
        """How many POSTs there were to the endpoints that end so, of both services."""
        asked = [*self.stamping.asked(), *self.tree.asked()]
        return sum(one.method == "POST" and one.path.endswith(end) for one in asked)

    @property
    def requests(self) -> int:
        return len(self.stamping.asked()) + len(self.tree.asked())
