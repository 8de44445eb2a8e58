"""docs/configuration.md is what the code says: each setting with its variable, type, default and meaning."""

from pathlib import Path

import pytest

from bridge_tasks.configuration import Setting, all_settings, document
from bridge_tasks.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
HOW = "python -m bridge_tasks.configuration > docs/configuration.md"
SETTINGS = all_settings()


def test_the_document_is_what_the_code_says() -> None:
    assert DOCUMENT.read_text() == document(SETTINGS), f"renew it: {HOW}"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_says_what_it_is_for(setting: Setting) -> None:
    assert setting.meaning.endswith((".", ")")), f"{setting.name}: an entry under Attributes, in its class"


def test_a_documented_default_is_the_one_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable, set to what the document gives as its default, changes nothing."""
    untouched = Settings()
    for setting in SETTINGS:
        if setting.default.startswith("`"):
            monkeypatch.setenv(setting.name, setting.default.strip("`"))
    assert Settings() == untouched


def test_no_value_that_somebody_has_set_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    before = document(SETTINGS)
    monkeypatch.setenv("BRIDGE_REDIS_URL", "redis://:s3cret@redis.example/0")
    assert document(all_settings()) == before
