"""A sandbox service that runs while tests do: where it is, what it was asked, and what is to go wrong next."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from fastapi import FastAPI

from bridge_tasks.sandbox.control import Controls, controls_of
from bridge_tasks.sandbox.faults import Injected
from bridge_tasks.sandbox.records import RequestRecord
from bridge_tasks.sandbox.refusals import Dialect
from bridge_tasks.sandbox.server import running


@dataclass(frozen=True, slots=True)
class RunningService:
    """One application behind one port of this machine."""

    url: str
    dialect: Dialect
    app: FastAPI
    controls: Controls

    def inject(self, *faults: Injected) -> None:
        """Put faults in force."""
        self.controls.faults.add(*faults)

    def refuse(self, seconds: float) -> None:
        """Let nobody listen on the port for a while."""
        httpx.post(f"{self.url}/_sandbox/faults", json=[{"kind": "refuse", "seconds": seconds}]).raise_for_status()

    def asked(self, path: str = "", correlation_id: str | None = None) -> list[RequestRecord]:
        """Return the requests that came since the test began, oldest first."""
        return self.controls.records.select(correlation_id, path)

    def reset(self) -> None:
        """Lift every fault, and forget every request."""
        self.controls.faults.clear()
        self.controls.records.clear()


@contextmanager
def serving(app: FastAPI, dialect: Dialect) -> Iterator[RunningService]:
    """Serve `app` for the length of a block."""
    with running(app) as url:
        yield RunningService(url, dialect, app, controls_of(app))
