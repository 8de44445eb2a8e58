"""The metadata stamping service, in either dialect: an ASGI application that really hashes, stamps and stores.

Two applications share nothing unless they are given the same database file. An application outlives the server
that runs it: stopped and served again, it still has its stamps.
"""

from pathlib import Path

from fastapi import FastAPI

from bridge_tasks.sandbox import refusals
from bridge_tasks.sandbox.backend import Backend, Limits
from bridge_tasks.sandbox.control import instrument
from bridge_tasks.sandbox.guide_dialect import GuideDialect
from bridge_tasks.sandbox.refusals import Dialect
from bridge_tasks.sandbox.service_dialect import ServiceDialect
from bridge_tasks.sandbox.service_vitals import ServiceVitals
from bridge_tasks.sandbox.stamp_store import StampStore


def create_app(
    dialect: Dialect = "service", database: Path | str = ":memory:", limits: Limits | None = None
) -> FastAPI:
    """Make the application.

    Args:
        dialect: which of the two wire formats it speaks.
        database: a SQLite file, so that stamps survive a restart; by default they live as long as the application.
        limits: sizes beyond which it answers 413; by default 100 MiB of content, 500 MiB of upload.
    """
    backend = Backend(store=StampStore(database), limits=limits or Limits())
    app = FastAPI(title="MetadataStampingService sandbox")
    refusals.install(app, dialect)
    instrument(app)
    if dialect == "guide":
        app.include_router(GuideDialect(backend).router())
    else:
        app.include_router(ServiceDialect(backend).router())
        app.include_router(ServiceVitals(backend).router())
    return app
