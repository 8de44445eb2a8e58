"""Run both services in one process: `python -m bridge_tasks.sandbox`.

Prints one line of JSON with both URLs when they answer, and ends on SIGTERM or SIGINT.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from bridge_tasks.sandbox import metadata_service, onextree_service
from bridge_tasks.sandbox.server import HOST, SandboxServer, serve_until_signalled


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and serve; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bridge_tasks.sandbox", description="Run both services.")
    parser.add_argument("--metadata-port", type=int, default=8053, help="0 takes a free one")
    parser.add_argument("--onextree-port", type=int, default=8058, help="0 takes a free one")
    parser.add_argument("--dialect", choices=("service", "guide"), default="service")
    parser.add_argument("--tree", type=Path, help="the directory that OnexTree indexes")
    parser.add_argument("--database", type=Path, help="a SQLite file for the stamps; default: in memory")
    parser.add_argument("--host", default=HOST, help="another address to listen on: 0.0.0.0 in a container")
    options = parser.parse_args(arguments)
    try:
        metadata = SandboxServer(
            metadata_service.create_app(options.dialect, options.database or ":memory:"),
            options.metadata_port,
            options.host,
        )
        onextree = SandboxServer(
            onextree_service.create_app(options.dialect, options.tree), options.onextree_port, options.host
        )
    except (OSError, ValueError) as error:
        parser.error(f"cannot start: {error}")

    def announce() -> None:
        print(json.dumps({"metadata_url": metadata.url, "onextree_url": onextree.url}), flush=True)  # noqa: T201 - the caller reads it

    asyncio.run(serve_until_signalled([metadata, onextree], announce))
    return 0


if __name__ == "__main__":
    sys.exit(main())
