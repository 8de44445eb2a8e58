"""A program that imports us may have a Celery application of its own: it must not notice."""

import subprocess
import sys
import textwrap

from tests.cli.command import REPOSITORY, environment


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_us_leaves_the_current_application_as_it_is_in_every_thread() -> None:
    seen = run("""
        import threading
        from celery import Celery, current_app, shared_task

        mine = Celery("mine")
        mine.set_default()

        @shared_task
        def hello():
            pass

        import bridge_tasks
        from bridge_tasks import Bridge, workflows

        names = [current_app.main, hello.app.main]
        thread = threading.Thread(target=lambda: names.append(current_app.main))
        thread.start()
        thread.join()
        print(names)
    """)

    assert seen == "['mine', 'mine', 'mine']"


def test_other_applications_messages_are_not_furnished() -> None:
    seen = run("""
        from celery import Celery
        from celery.signals import before_task_publish
        import bridge_tasks
        from bridge_tasks import Bridge

        seen = []
        before_task_publish.connect(lambda headers=None, **_: seen.append(headers), weak=False)
        mine = Celery("mine", broker="memory://")

        @mine.task(name="mine.hello")
        def hello(secret):
            pass

        hello.delay("argument")
        headers, = seen
        print("x-correlation-id" in headers, "argument" in headers["argsrepr"])
    """)

    assert seen == "False True"


def test_our_canvases_find_our_application_without_being_the_current_one() -> None:
    seen = run("""
        from celery import Celery, chain, chord, group
        mine = Celery("mine")
        mine.set_default()
        from bridge_tasks.tasks import check_health, get_stamp
        step = get_stamp.s(file_hash="0" * 64)
        print({canvas.app.main for canvas in (step, chain(step, step), group(step, step), chord([step], step))})
    """)

    assert seen == "{'bridge_tasks'}"
