"""What a canvas is as a job: the same work has the same key, and each task knows which job it is a step of."""

import base64
from typing import Any

import pytest
from celery import chain, chord, group

from bridge_tasks.errors import InvalidRequest
from bridge_tasks.messages import JOB, PART
from bridge_tasks.submissions import planned
from bridge_tasks.tasks import check_health, create_stamp, generate_hash, get_intelligence, get_stamp, stamp_file


def hashing(text: str = "a") -> Any:
    return generate_hash.si(content={"kind": "inline", "data": base64.b64encode(text.encode()).decode()})


def asking(context: str = "c") -> Any:
    return get_intelligence.si(context=context)


SHAPES: dict[str, Any] = {
    "task": hashing,
    "another input": lambda: hashing("b"),
    "another task": asking,
    "elsewhere": lambda: hashing().set(queue="bridge.bulk"),
    "chain": lambda: hashing() | asking(),
    "chain the other way round": lambda: asking() | hashing(),
    "group": lambda: group(hashing(), asking()),
    "group of one": lambda: group(hashing()),
    "group of chains": lambda: group(hashing() | asking(), asking()),
    "chord": lambda: chord([hashing(), hashing("b")], asking()),
    "chain with a group at its end": lambda: hashing() | group(asking(), asking("d")),
    "chain with a group in it": lambda: hashing() | group(asking(), asking("d")) | asking("e"),
    "group in a group": lambda: group(group(hashing(), asking()), asking("d")),
}


def leaves(work: Any) -> list[Any]:
    if isinstance(work, chord):
        return leaves(group(work.tasks)) + leaves(work.body)
    members = getattr(work, "tasks", None)
    return [work] if members is None else [leaf for member in members for leaf in leaves(member)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_work_has_the_same_key_and_ids_of_its_own(shape: str) -> None:
    one, two = planned(SHAPES[shape]()), planned(SHAPES[shape]())
    assert one.key == two.key
    assert one.job != two.job
    assert not set(one.parts) & set(two.parts)


def test_other_work_has_another_key() -> None:
    keys = {shape: planned(build()).key for shape, build in SHAPES.items()}
    assert len(set(keys.values())) == len(SHAPES)


def test_a_correlation_id_is_no_part_of_the_work() -> None:
    named = hashing().set(headers={"x-correlation-id": "order-66"})
    assert planned(named).key == planned(hashing()).key


PARTS = {
    "task": 1,
    "chain": 1,
    "group": 2,
    "group of one": 1,
    "group of chains": 2,
    "chord": 1,
    "chain with a group at its end": 2,
    "chain with a group in it": 1,
    "group in a group": 3,
}


@pytest.mark.parametrize(("shape", "parts"), PARTS.items())
def test_a_job_s_parts_are_the_tasks_that_end_it_and_each_task_knows_them(shape: str, parts: int) -> None:
    work = SHAPES[shape]()
    plan = planned(work)
    assert len(plan.parts) == parts
    assert (plan.job in plan.parts) == (parts == 1 and not isinstance(work, group)), "a group is no task"
    marks = [leaf.options["headers"] for leaf in leaves(work)]
    assert {mark[JOB] for mark in marks} == {plan.job}
    assert {mark[PART] for mark in marks} - {""} <= set(plan.parts)
    assert all(leaf.options["ignore_result"] for leaf in leaves(work))


@pytest.mark.parametrize(
    ("work", "lasting"),
    [
        (hashing(), True),
        (stamp_file.si(content={"kind": "file", "path": "/a"}, file_path="/a", context="c"), True),
        (hashing() | asking() | create_stamp.s(file_path="/a"), True),
        (group(asking(), hashing()), True),
        (asking(), False),
        (check_health.si(), False),
        (get_stamp.si(file_hash="a" * 64), False),
        (generate_hash.si(content={"kind": "url", "url": "http://h/a"}), False),
    ],
)
def test_a_success_stands_for_the_same_work_only_where_nothing_else_can_come_of_it(
    work: Any, lasting: bool
) -> None:
    assert planned(work).lasting is lasting


def test_a_file_s_job_is_found_by_the_file() -> None:
    one = planned(generate_hash.si(content={"kind": "file", "path": "/a"}))
    two = planned(chain(hashing(), generate_hash.si(content={"kind": "file", "path": "/a"})))
    assert one.file == two.file != ""
    assert planned(hashing()).file == ""


def test_a_title_says_what_is_done() -> None:
    assert planned(hashing()).title == "bridge.generate_hash"
    assert planned(hashing() | asking()).title == "chain: generate_hash | get_intelligence"
    assert planned(group(hashing(), asking())).title == "group: 2 tasks"


@pytest.mark.parametrize("work", [group([]), chain()])
def test_an_empty_canvas_is_refused(work: Any) -> None:
    with pytest.raises(InvalidRequest, match="empty canvas"):
        planned(work)
