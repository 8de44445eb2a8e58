"""What stands round it: dashboards, variables that mean nothing, versions, the user. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from bridge_tasks.checking.facts import Facts
from bridge_tasks.checking.findings import Finding, fatal, note, warning

TESTED: Final[Mapping[str, tuple[str, ...]]] = {"celery": ("5.7",), "kombu": ("5.7",), "redis": ("8.",)}
"""Our transport takes the place of parts of kombu that have no promise of staying."""


def _flower(facts: Facts) -> Iterator[Finding]:
    flower = facts.flower
    if flower is None:
        return
    if flower.open_api:
        yield fatal(
            "flower-api",
            "FLOWER_UNAUTHENTICATED_API is on.",
            "Whoever reaches Flower, any page in a browser among them, can send tasks and end workers.",
            "unset FLOWER_UNAUTHENTICATED_API",
        )
    if flower.beyond and not flower.guarded:
        yield fatal(
            "flower-open",
            "Flower is to listen beyond this machine, and to ask nobody who he is.",
            "Everybody there could see every job and every worker: it does not start like this.",
            'export FLOWER_BASIC_AUTH="bridge:$(openssl rand -base64 18)"  # or BRIDGE_FLOWER__PASSWORD',
        )
    elif flower.weak:
        yield warning(
            "flower-password",
            "Flower's password is short, or is the user's name.",
            "It can be guessed, and Flower does not slow anybody down.",
            'export FLOWER_BASIC_AUTH="bridge:$(openssl rand -base64 18)"',
        )


def _variables(facts: Facts) -> Iterator[Finding]:
    for name, meant in facts.misspelt.items():
        yield warning(
            "unknown-variable",
            f"{name} is no setting.",
            "It changes nothing, whatever somebody wanted by it.",
            f"export {meant}=…; unset {name}" if meant else f"unset {name}  # docs/configuration.md has all",
        )
    if facts.ignored_file:
        yield warning(
            "env-file",
            f"{facts.ignored_file} is not read: it is another user's, or others may write to it.",
            "What is in it is not set, although it looks as if it were.",
            f"chown $(id -un) {facts.ignored_file}; chmod go-w {facts.ignored_file}",
        )
    if facts.look_seconds < facts.beat_seconds:
        yield warning(
            "look-seconds",
            f"BRIDGE_LEDGER__LOOK_SECONDS is {facts.look_seconds:g} s, and BRIDGE_LEDGER__BEAT_SECONDS "
            f"{facts.beat_seconds:g} s.",
            "A look compares signs of life, and comes with them: what is lost is found no sooner than they tell.",
            f"export BRIDGE_LEDGER__LOOK_SECONDS={facts.beat_seconds:g}",
        )
    if facts.log_level == "DEBUG":
        yield note(
            "debug-log",
            "BRIDGE_LOG__LEVEL is DEBUG.",
            "Libraries write far more than anybody reads, and workers are slower.",
            "export BRIDGE_LOG__LEVEL=INFO",
        )


def _versions(facts: Facts) -> Iterator[Finding]:
    for package, begins in TESTED.items():
        version = facts.versions.get(package, "")
        if version and not version.startswith(begins):
            yield warning(
                "versions",
                f"{package} is {version}; this was tested with {' or '.join(begins)}.",
                "The transport and the ledger rest on its insides.",
                "pip install --upgrade bridge-tasks",
            )


def _user(facts: Facts) -> Iterator[Finding]:
    if facts.root_user:
        yield note(
            "root-user",
            "This runs as root.",
            "A flaw in whatever reads documents would be root's.",
            "su -s /bin/sh bridge -c 'bridge-tasks worker'",
        )


RULES = (_flower, _variables, _versions, _user)
