"""The command `bridge-tasks`. Importing this must stay quick: each command loads what it needs, when it runs."""

import sys

from bridge_tasks.cli.commands import app
from bridge_tasks.cli.screen import say

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit: 0 well, 1 something failed, 2 wrong input, 130 Ctrl-C."""
    try:
        app(prog_name="bridge-tasks")
    except Exception as error:
        from bridge_tasks.cli.troubles import told  # noqa: PLC0415 - imports Celery, which only trouble needs

        explained = told(error)
        if explained is None:
            raise
        message, status = explained
        for line in f"bridge-tasks: {message}".splitlines():
            say(line)
        sys.exit(status)
