"""Run both services in one process: `python -m bridge_tasks.sandbox`.

Prints one line of JSON with both URLs when they answer, and ends on SIGTERM or SIGINT.
"""

import argparse
import asyncio
import errno
import json
import sys
from pathlib import Path

from fastapi import FastAPI

from bridge_tasks.sandbox import metadata_service, onextree_service
from bridge_tasks.sandbox.ports import HOST
from bridge_tasks.sandbox.refusals import Dialect
from bridge_tasks.sandbox.server import SandboxServer, serve_until_signalled


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and serve; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bridge_tasks.sandbox", description="Run both services.")
    parser.add_argument("--metadata-port", type=int, default=8053, help="0 takes a free one")
    parser.add_argument("--onextree-port", type=int, default=8058, help="0 takes a free one")
    parser.add_argument("--or-any-port", action="store_true", help="instead of a port that is taken, a free one")
    parser.add_argument("--dialect", choices=("service", "guide"), default="service")
    parser.add_argument("--tree", type=Path, help="the directory that OnexTree indexes")
    parser.add_argument("--database", type=Path, help="a SQLite file for the stamps; default: in memory")
    parser.add_argument(
        "--keys", action=argparse.BooleanOptionalAction, default=True, help="heed idempotency keys (the default)"
    )
    parser.add_argument("--host", default=HOST, help="another address to listen on: 0.0.0.0 in a container")
    parser.add_argument("--traces", action="store_true", help="make spans of requests, with the extra otel")
    options = parser.parse_args(arguments)
    if options.traces:
        from bridge_tasks.observability import spans  # noqa: PLC0415 - OpenTelemetry, only where it is wanted

        spans.start("bridge-sandbox")  # FastAPI makes the spans: of each request, as part of the trace it names
    try:
        servers = prepare(
            options.dialect,
            options.tree,
            options.database,
            metadata_port=options.metadata_port,
            onextree_port=options.onextree_port,
            host=options.host,
            heeds_keys=options.keys,
            or_any_port=options.or_any_port,
        )
    except (OSError, ValueError) as error:
        parser.error(f"cannot start: {error}")
    serve(*servers)
    return 0


def prepare(
    dialect: Dialect,
    tree: Path | None,
    database: Path | None,
    *,
    metadata_port: int,
    onextree_port: int,
    host: str = HOST,
    heeds_keys: bool = True,
    or_any_port: bool = False,
) -> tuple[SandboxServer, SandboxServer]:
    """Make both services, MetadataStamping first, on ports that are theirs from now on.

    Instead of a port that is taken, they have a free one if `or_any_port`.

    Raises:
        OSError: a port, the tree or the database cannot be had; of a port, the message names it.
        ValueError: the tree is too large.
    """
    metadata = metadata_service.create_app(dialect, database or ":memory:", heeds_keys=heeds_keys)
    onextree = onextree_service.create_app(dialect, tree)
    return (
        _server(metadata, metadata_port, host, "--metadata-port", or_any_port),
        _server(onextree, onextree_port, host, "--onextree-port", or_any_port),
    )


def serve(metadata: SandboxServer, onextree: SandboxServer) -> None:
    """Run both until a signal ends them; prints their URLs once they answer."""

    def announce() -> None:
        print(json.dumps({"metadata_url": metadata.url, "onextree_url": onextree.url}), flush=True)  # noqa: T201 - the caller reads it

    asyncio.run(serve_until_signalled([metadata, onextree], announce))


def _server(app: FastAPI, port: int, host: str, option: str, or_any_port: bool) -> SandboxServer:
    try:
        return SandboxServer(app, port, host)
    except OSError as error:
        if or_any_port and error.errno == errno.EADDRINUSE:
            return SandboxServer(app, 0, host)
        raise OSError(f"port {port}: {error.strerror}; {option} chooses another, 0 a free one") from error


if __name__ == "__main__":
    sys.exit(main())
