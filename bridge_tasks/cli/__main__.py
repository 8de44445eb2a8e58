"""`python -m bridge_tasks.cli` is `bridge-tasks`."""

from bridge_tasks.cli import main

main()
