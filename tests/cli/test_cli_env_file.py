from pathlib import Path

import pytest

from bridge_tasks.cli.env_file import env_file, refuse_taken
from bridge_tasks.errors import ConfigurationError
from bridge_tasks.settings import load
from tests.cli.command import unprivileged

VARIABLES = {"BRIDGE_REDIS_URL": "redis://127.0.0.1:7000/0", "BRIDGE_CONTENT__ROOTS": "/a b/#c"}


def there(_: str) -> bool:
    return True


def gone(_: str) -> bool:
    return False


def test_the_file_is_for_its_owner_only_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / ".bridge.env"
    with env_file(path, VARIABLES):
        assert path.stat().st_mode & 0o777 == 0o600
        assert [file.name for file in tmp_path.iterdir()] == [".bridge.env"]
    assert not list(tmp_path.iterdir())


def test_the_file_is_gone_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), env_file(tmp_path / ".bridge.env", VARIABLES):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_settings_read_back_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRIDGE_REDIS_URL", raising=False)
    monkeypatch.delenv("BRIDGE_CONTENT__ROOTS", raising=False)
    with env_file(Path(".bridge.env"), VARIABLES):
        settings = load.__wrapped__()
    assert settings.broker == "redis://127.0.0.1:7000/0"
    assert settings.content.roots == ("/a b/#c",)


def test_the_file_of_a_stack_that_answers_is_respected(tmp_path: Path) -> None:
    path = tmp_path / ".bridge.env"
    with env_file(path, VARIABLES), pytest.raises(ConfigurationError, match="already"):
        refuse_taken(path, there)


def test_the_file_of_a_stack_that_is_gone_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / ".bridge.env"
    with env_file(path, VARIABLES):
        refuse_taken(path, gone)


@pytest.mark.parametrize("content", ["", "BRIDGE_REDIS_URL=redis://production/0\n"])
def test_a_file_that_somebody_else_wrote_is_never_replaced(content: str, tmp_path: Path) -> None:
    path = tmp_path / ".bridge.env"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="not written by"):
        refuse_taken(path, gone)


def test_a_file_that_another_stack_wrote_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / ".bridge.env"
    with env_file(path, VARIABLES):
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_a_directory_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with unprivileged(), pytest.raises(ConfigurationError, match="cannot be written"):
        refuse_taken(tmp_path / ".bridge.env", gone)
