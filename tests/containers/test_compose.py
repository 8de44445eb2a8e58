"""The stack of docker-compose.yml, as docs/containers.md starts it: it is well, locked in, and loses nothing."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.engine import REPOSITORY, Project
from tests.workers import eventually

DOC = (REPOSITORY / "docs" / "containers.md").read_text()
COMMANDS = "".join(re.findall(r"^```bash\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)).splitlines()
START, USE, (END,) = COMMANDS[:2], COMMANDS[2:-1], COMMANDS[-1:]

WORKERS = 3
SLOTS = 2 * WORKERS
CHUNK = 100
FILES = 14 * CHUNK
"""So many that the second round of chunks is not the last."""
MEGABYTE = 1 << 20
LAYERS = 80 * MEGABYTE
"""What our image may add to its base: the libraries, and us."""

_ASK = """
import sys, urllib.request as r
method, path, body = sys.argv[1:]
url = f"http://127.0.0.1:8053{path}"
asked = r.Request(url, body.encode(), {"content-type": "application/json"}, method=method)
print(r.urlopen(asked).read().decode())
"""


class Stack:
    """The running stack."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def inside(self, service: str, *command: str) -> str:
        return self.project.compose("exec", "-T", service, *command)

    def health(self) -> list[str]:
        found = self.project.containers()
        return sorted(f"{_service(one)}: {one['State'].get('Health', {}).get('Status')}" for one in found)

    def is_well(self) -> bool:
        parts = ["flower", "redis", "services", *["worker"] * WORKERS]
        return self.health() == [f"{part}: healthy" for part in sorted(parts)]

    def sandbox(self, method: str, path: str, body: object = None) -> Any:
        return json.loads(self.inside("services", "python", "-c", _ASK, method, path, json.dumps(body)) or "null")

    def effects(self, folder: str) -> dict[str, int]:
        """Which files of a folder were really stamped, and how often."""
        made = self.sandbox("GET", "/_sandbox/effects")["effects"]
        return {one["file_path"]: one["times"] for one in made if one["file_path"].startswith(f"/data/{folder}/")}

    def submitted(self, folder: str) -> str:
        """Begin a run over many files; returns its id."""
        directory = self.project.directory / "docs" / folder
        directory.mkdir()
        for number in range(FILES):
            (directory / f"{number}.txt").write_text(f"{folder} {number}\n")
        said = self.inside("worker", "bridge-tasks", "stamp", f"/data/{folder}", "--detach", "--json")
        return str(json.loads(said)["run_id"])

    def faults(self, *ordered: Mapping[str, Any]) -> None:
        """Have these go wrong with the calls for a chunk, and nothing else."""
        self.sandbox("DELETE", "/_sandbox/faults")
        self.sandbox("DELETE", "/_sandbox/requests")
        self.sandbox("POST", "/_sandbox/faults", [{**fault, "path": "/batch"} for fault in ordered])

    def chunks_sent(self) -> int:
        return len(self.sandbox("GET", "/_sandbox/requests?path=/batch"))

    def ends_well(self, run: str, folder: str) -> None:
        """The run succeeds for each file, and the service has stamped each once."""
        said = self.inside("worker", "bridge-tasks", "watch", run, "--json", "--quiet", "--timeout", "150")
        told: Mapping[str, Any] = json.loads(said)
        assert (told["succeeded"], told["failed"]) == (FILES, 0), told
        assert self.effects(folder) == {f"/data/{folder}/{number}.txt": 1 for number in range(FILES)}


@pytest.fixture(scope="module")
def stack(project: Project) -> Iterator[Stack]:
    """The stack, after the first commands of the document; a circuit that opened is tried again soon."""
    settings = project.directory / "deploy" / "settings.env"
    settings.write_text("BRIDGE_METADATA__BREAKER__RECOVERY_TIMEOUT=2\n")
    for line in START:
        done = project.documented(line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    stack = Stack(project)
    if not eventually(stack.is_well, 90):
        pytest.fail(f"{stack.health()}\n{project.run([*project.command, 'logs', '--tail', '40']).stdout}")
    yield stack
    project.compose("down", "--volumes", "--timeout", "0")


def test_every_profile_is_understood(project: Project) -> None:
    project.compose("--profile", "metrics", "config", "--quiet")


def test_what_the_document_does_with_the_stack_ends_well(stack: Stack) -> None:
    for line in USE:
        done = stack.project.documented(line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)


def test_no_part_has_root_privileges_or_a_file_system_to_write_to(stack: Stack) -> None:
    for one in stack.project.containers():
        assert one["HostConfig"]["ReadonlyRootfs"], one["Name"]
        status = stack.project.well("docker", "exec", one["Id"], "cat", "/proc/1/status")
        told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in told["Uid"].split(), one["Name"]
        assert (int(told["CapEff"], 16), told["NoNewPrivs"]) == (0, "1"), one["Name"]


def test_nothing_is_published_but_flower_on_this_machine_and_behind_its_password(stack: Stack) -> None:
    bound = {
        (_service(one), host["HostIp"])
        for one in stack.project.containers()
        for published in one["NetworkSettings"]["Ports"].values()
        for host in published or ()
    }
    assert bound == {("flower", "127.0.0.1")}

    address = f"http://{stack.project.compose('port', 'flower', '5555').strip()}"
    assert httpx.get(f"{address}/workers").status_code == 401


def test_the_password_of_redis_is_no_argument_of_a_process(stack: Stack) -> None:
    password = re.findall("BRIDGE_REDIS_PASSWORD=(.+)", (stack.project.directory / ".env").read_text())[0]

    for one in stack.project.containers():
        assert password not in stack.project.well("docker", "top", one["Id"], "-eo", "pid,args"), one["Name"]


def test_the_image_is_small_and_brings_no_installer(stack: Stack) -> None:
    base = re.findall("^ARG BASE=(.+)", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)[0]
    images = stack.project.well("docker", "inspect", "--format", "{{.Size}}", "bridge-tasks", base)

    ours, theirs = map(int, images.split())
    assert ours - theirs < LAYERS
    assert (
        "No module named pip"
        in stack.project.run(
            [*stack.project.command, "exec", "-T", "worker", "/opt/bridge/bin/python", "-m", "pip"]
        ).stderr
    )


def test_a_worker_that_stands_still_fails_its_probe(stack: Stack) -> None:
    worker = stack.project.containers("worker")[0]["Id"]
    probe = ["docker", "exec", worker, "bridge-tasks", "probe", "--silence", "2"]
    assert stack.project.run(probe).returncode == 0

    stack.project.well("docker", "kill", "--signal", "STOP", worker)
    assert eventually(lambda: stack.project.run(probe).returncode == 1)
    stack.project.well("docker", "kill", "--signal", "CONT", worker)

    assert eventually(lambda: stack.project.run(probe).returncode == 0)


def test_killed_workers_and_a_killed_redis_lose_nothing(stack: Stack) -> None:
    answer_lost = {"kind": "hang", "after_work": True, "count": SLOTS // 2}
    stack.faults(answer_lost, {"kind": "hang", "count": SLOTS // 2})
    run = stack.submitted("killed")
    assert eventually(lambda: stack.chunks_sent() == SLOTS)
    assert len(stack.effects("killed")) == SLOTS // 2 * CHUNK

    stack.project.well("docker", "kill", *(one["Id"] for one in stack.project.containers("worker")[:2]))
    stack.project.well("docker", "kill", stack.project.containers("redis")[0]["Id"])
    stack.faults()
    stack.project.compose("up", "--detach", "--no-build", "--scale", f"worker={WORKERS}")

    stack.ends_well(run, "killed")
    assert eventually(stack.is_well, 60), stack.health()


def test_down_in_the_midst_of_a_run_ends_or_returns_each_job(stack: Stack) -> None:
    stack.faults({"kind": "latency", "seconds": 5})
    run = stack.submitted("down")
    assert eventually(lambda: stack.chunks_sent() >= SLOTS)
    assert len(stack.effects("down")) < FILES

    began = time.monotonic()
    done = stack.project.documented(END)
    assert (done.returncode, stack.project.containers()) == (0, []), done.stderr
    assert time.monotonic() - began < 60, "nobody had to be killed when the grace was over"
    stack.project.compose("up", "--detach", "--no-build", "--scale", f"worker={WORKERS}")
    assert eventually(stack.is_well, 60), stack.health()

    stack.ends_well(run, "down")


def _service(container: Mapping[str, Any]) -> str:
    return str(container["Config"]["Labels"]["com.docker.compose.service"])
