"""docs/tasks.md names every task with its arguments and its queue; a table that lags behind fails here."""

import re
from pathlib import Path

import pytest

from bridge_tasks import tasks
from bridge_tasks.celeryconfig import task_default_queue, task_routes

ROWS = {
    match[1]: match[0]
    for match in re.finditer(
        r"^\| `(bridge\.\w+)` .*$", (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(), re.MULTILINE
    )
}
TASKS = {getattr(tasks, name).name: getattr(tasks, name) for name in tasks.__all__}


def test_every_task_has_its_row_and_no_other_has() -> None:
    assert ROWS.keys() == TASKS.keys()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_row_names_the_queue_and_all_arguments_and_marks_the_required_ones(name: str) -> None:
    row = ROWS[name]
    queue = task_routes.get(name, {"queue": task_default_queue})["queue"]

    assert f"`{queue}`" in row
    for field, info in TASKS[name].request_model.model_fields.items():
        assert re.search(rf"\b{field}\b", row), field
        assert (f"**{field}**" in row) == info.is_required(), field
