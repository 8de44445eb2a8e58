"""The metadata stamping service, in either dialect: an ASGI application that really hashes, stamps and stores.

Two applications share nothing unless they are given the same database file. An application outlives the server
that runs it: stopped and served again, it still has its stamps.
"""

from pathlib import Path

from fastapi import FastAPI

from bridge_tasks.sandbox import refusals
from bridge_tasks.sandbox.backend import Backend, Limits
from bridge_tasks.sandbox.control import instrument
from bridge_tasks.sandbox.database import Database
from bridge_tasks.sandbox.effect_log import EffectLog
from bridge_tasks.sandbox.guide_dialect import GuideDialect
from bridge_tasks.sandbox.records import CONTROL_PREFIX
from bridge_tasks.sandbox.refusals import Dialect
from bridge_tasks.sandbox.service_dialect import ServiceDialect
from bridge_tasks.sandbox.service_vitals import ServiceVitals
from bridge_tasks.sandbox.stamp_store import StampStore


def create_app(
    dialect: Dialect = "service",
    database: Path | str = ":memory:",
    limits: Limits | None = None,
    *,
    heeds_keys: bool = True,
) -> FastAPI:
    """Make the application.

    Args:
        dialect: which of the two wire formats it speaks.
        database: a SQLite file, so that stamps survive a restart; by default they live as long as the application.
        limits: sizes beyond which it answers 413; by default 100 MiB of content, 500 MiB of upload.
        heeds_keys: whether it knows idempotency keys, as the known service does not.
    """
    kept = Database(database)
    backend = Backend(store=StampStore(kept), limits=limits or Limits(), heeds_keys=heeds_keys)
    app = FastAPI(title="MetadataStampingService sandbox")
    refusals.install(app, dialect)
    instrument(app)
    app.state.effects = EffectLog(kept)
    app.include_router(effects_of(app).router(), prefix=CONTROL_PREFIX, include_in_schema=False)
    if dialect == "guide":
        app.include_router(GuideDialect(backend).router())
    else:
        app.include_router(ServiceDialect(backend).router())
        app.include_router(ServiceVitals(backend).router())
    return app


def effects_of(app: FastAPI) -> EffectLog:
    """Return the log of what an application that `create_app` made has really done."""
    log: EffectLog = app.state.effects
    return log
