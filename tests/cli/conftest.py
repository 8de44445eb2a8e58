"""One stack for all tests of commands that need one: starting it takes seconds."""

import json
import signal
from collections.abc import Iterator

import pytest

from tests.cli.command import Up, finish, processes_that_know, start

__all__ = ["Up", "up"]


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    directory, temporary = tmp_path_factory.mktemp("up"), tmp_path_factory.mktemp("tmp")
    with start("up", "--json", cwd=directory, extra={"TMPDIR": str(temporary)}) as process:
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            pytest.fail(finish(process).err)
        yield Up(directory, json.loads(line))
        process.send_signal(signal.SIGINT)
        ended = finish(process, timeout=10)
    assert ended.status == 130
    assert "Stopped" in ended.err
    assert not (directory / ".bridge.env").exists()
    assert not list(temporary.iterdir())
    assert not processes_that_know(str(temporary))
