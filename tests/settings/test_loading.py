"""The environment is refused by the variable's name, and never by its value."""

from pathlib import Path

import pytest

from bridge_tasks import settings
from bridge_tasks.errors import ConfigurationError
from bridge_tasks.places import SENTINEL_PORT, parts

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    settings.load.cache_clear()
    return tmp_path


@pytest.fixture(autouse=True)
def afterwards() -> object:
    yield
    settings.load.cache_clear()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRIDGE_REDIS_URL", f"redis://:{SECRET}/x@127.0.0.1:1/0"),
        ("BRIDGE_REDIS_URL", f"http://{SECRET}"),
        ("BRIDGE_BROKER_URL", f"redis://:{SECRET}/x@127.0.0.1:1/0"),
        ("BRIDGE_BROKER_URL", SECRET),
        ("BRIDGE_RESULT_BACKEND_URL", f"{SECRET}://x"),
        ("BRIDGE_REDIS_URL", f"sentinel://a:1;redis://:{SECRET}@b:2"),
        ("BRIDGE_REDIS_URL", f"sentinel://:{SECRET}/x@a:1;sentinel://b:2"),
        ("BRIDGE_REDIS_URL", f"redis://a:1;sentinel://:{SECRET}@b:2"),
        ("BRIDGE_REDIS_URL", f"redis://a:1/0;redis://:{SECRET}@b:2/0"),
        ("BRIDGE_BROKER_URL", f"amqp://a:1;amqp://me:{SECRET}@b:2"),
        ("BRIDGE_METADATA__URLS", f"http://user:{SECRET}@host"),
        ("BRIDGE_METADATA__URLS", ""),
        ("BRIDGE_METADATA", f"{{{SECRET}"),
        ("BRIDGE_METADATA__RETRY", f"{{{SECRET}"),
        ("BRIDGE_METADATA__RETRY__ATTEMPTS", "0"),
        ("BRIDGE_METADATA__TIMEOUT", "nan"),
        ("BRIDGE_CONTENT__ROOTS", f"~{SECRET}/x"),
        ("BRIDGE_CONTENT__ROOTS", "relative"),
        ("BRIDGE_CONTENT__MAX_BYTES", "many"),
        ("BRIDGE_TASK__VISIBILITY_TIMEOUT", "61"),
        ("BRIDGE_LOG__LEVEL", "LOUD"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as refused:
        settings.load()

    section = "__".join(name.split("__")[:1])
    assert str(refused.value).startswith(section)
    assert SECRET not in repr(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_file_beside_the_program_speaks_for_the_environment(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BRIDGE_REDIS_URL", raising=False)
    file = elsewhere / settings.ENV_FILE
    file.write_text("BRIDGE_REDIS_URL=redis://127.0.0.1:7777/3\n")
    file.chmod(0o600)

    assert settings.load().broker == "redis://127.0.0.1:7777/3"


def test_a_file_that_others_can_write_does_not(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRIDGE_REDIS_URL", raising=False)
    file = elsewhere / settings.ENV_FILE
    file.write_text("BRIDGE_REDIS_URL=redis://127.0.0.1:7777/3\n")
    file.chmod(0o666)

    assert "7777" not in settings.load().broker


def test_a_file_that_is_no_text_is_named(elsewhere: Path) -> None:
    file = elsewhere / settings.ENV_FILE
    file.write_bytes(b"BRIDGE_LOG__LEVEL=\xff\n")
    file.chmod(0o600)

    with pytest.raises(ConfigurationError, match=settings.ENV_FILE):
        settings.load()


def test_part_of_a_section_leaves_the_rest_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_TASK__RETRY__ATTEMPTS", "2")

    retry = settings.load().task.retry

    assert (retry.attempts, retry.initial, retry.maximum) == (2, 1.0, 300.0)


def test_hosts_are_compared_without_regard_to_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_CONTENT__HOSTS", "Example.COM, other.example")

    assert settings.load().content.hosts == ("example.com", "other.example")


def test_sentinels_are_named_in_one_url_and_their_secrets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_REDIS_URL", f"sentinel://me:{SECRET}@a/3;sentinel://b:2")
    monkeypatch.setenv("BRIDGE_SENTINEL__PASSWORD", f"other-{SECRET}")

    told = settings.load()

    assert told.redis_broker
    assert told.ledger_place == told.state_place
    assert told.ledger_place.watched
    assert parts(told.ledger_url) == (
        [("a", SENTINEL_PORT), ("b", 2)],
        {"username": "me", "password": SECRET, "db": 3},
    )
    assert SECRET not in repr(told)
    assert SECRET not in repr(told.ledger_place)


def test_nobody_waits_for_replicas_where_no_sentinels_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_REDIS_URL", "redis://127.0.0.1:7777/3")
    assert settings.load().copies(refuse=True) is None
    settings.load.cache_clear()

    monkeypatch.setenv("BRIDGE_REDIS_URL", "sentinel://127.0.0.1:7777/3")
    assert settings.load().copies(refuse=True) is not None
    settings.load.cache_clear()

    monkeypatch.setenv("BRIDGE_SENTINEL__COPIES", "0")
    assert settings.load().copies(refuse=True) is None
