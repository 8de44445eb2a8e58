"""Reading a worker's `/metrics` as Prometheus does, and having promtool judge it."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import redis
from prometheus_client.parser import text_string_to_metric_families

from bridge_tasks.ledger import keys
from tests.needed import lacking

OPEN_METRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one worker answered."""

    text: str

    def sums(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The values of a sample, added up over all labels but these; zeroes left out."""
        found: Counter[tuple[str, ...]] = Counter()
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                if sample.name == name:
                    found[tuple(sample.labels[label] for label in labels)] += sample.value  # type: ignore[assignment] # whole numbers
        return {key: value for key, value in found.items() if value}

    def value(self, name: str) -> float:
        return sum(self.sums(name).values())


def addresses(redis_url: str) -> dict[str, str]:
    """Where each worker serves, by the name of its node."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        known: Mapping[str, str] = client.hgetall(keys.METRICS)
    return {name.partition("@")[0]: f"http://{address}/metrics" for name, address in known.items()}


def scrape(url: str, **headers: str) -> Scrape:
    answer = httpx.get(url, headers=headers, timeout=10).raise_for_status()
    return Scrape(answer.text)


def promtool(*command: str, told: str = "") -> str:
    """Run promtool; it says nothing of what is well."""
    if shutil.which("promtool") is None:
        lacking("no promtool: .ci/promtool installs it")
    ended = subprocess.run(["promtool", *command], input=told, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr
