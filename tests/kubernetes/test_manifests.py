"""The manifests: valid for Kubernetes and KEDA, locked in, at one with the settings, the queues and the docs."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda import v1alpha1 as keda

from bridge_tasks import celeryconfig

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "deploy" / "kubernetes"
DOC = (REPOSITORY / "docs" / "containers.md").read_text()
VERSIONS = ("1.30", "1.37")
"""The oldest and the newest Kubernetes that they are valid for."""

Manifest = dict[str, Any]


@cache
def kustomization() -> Manifest:
    return dict(yaml.safe_load((FOLDER / "kustomization.yaml").read_text()))


@cache
def manifests() -> list[Manifest]:
    return [
        found for name in kustomization()["resources"] for found in yaml.safe_load_all((FOLDER / name).read_text())
    ]


def of_kind(kind: str) -> list[Manifest]:
    return [one for one in manifests() if one["kind"] == kind]


def pods() -> list[Manifest]:
    return [one["spec"]["template"]["spec"] for one in of_kind("Deployment")]


def containers() -> list[Manifest]:
    return [container for pod in pods() for container in pod["containers"]]


def test_every_file_is_part_of_the_whole() -> None:
    files = {found.name for found in FOLDER.iterdir()} - {"kustomization.yaml", "settings.env"}

    assert set(kustomization()["resources"]) == files


@pytest.mark.parametrize("version", VERSIONS)
def test_all_are_valid_for_kubernetes(version: str) -> None:
    checked = [one for one in manifests() if not one["apiVersion"].startswith("keda.sh/")]

    for one in checked:
        kubernetes_validate.validate(one, version, strict=True)
    assert len(checked) == 7


def test_a_manifest_that_is_wrong_would_be_found() -> None:
    wrong = {**of_kind("Service")[0], "spec": {"ports": [{"prot": 1}]}}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("kind", ["ScaledObject", "TriggerAuthentication"])
def test_what_scales_is_valid_for_keda(kind: str) -> None:
    (one,) = of_kind(kind)

    assert known(one) == one
    misspelt = {**one, "spec": {**one["spec"], "trigers": []}}
    assert known(misspelt) == one


def known(one: Manifest) -> Manifest:
    """What KEDA knows of it: a field that it does not know is dropped."""
    found = getattr(keda, one["kind"]).model_validate(one)
    return dict(found.model_dump(by_alias=True, exclude_unset=True, mode="json"))


def test_no_container_has_more_rights_than_it_needs() -> None:
    for pod in pods():
        assert (pod["securityContext"]["runAsNonRoot"], pod["automountServiceAccountToken"]) == (True, False)
    for container in containers():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_a_worker_is_ready_when_it_consumes_and_restarted_only_when_it_is_dead() -> None:
    (worker,) = (one for one in containers() if one["name"] == "worker")
    commands = {name: worker[f"{name}Probe"]["exec"]["command"] for name in ("startup", "readiness", "liveness")}

    assert commands["readiness"] == ["bridge-tasks", "probe"]
    assert commands["startup"][:3] == commands["liveness"][:3] == ["bridge-tasks", "probe", "--alive"]


def test_a_worker_has_the_time_to_end_what_it_has() -> None:
    (pod,) = (pod for pod in pods() if pod["containers"][0]["name"] == "worker")

    assert pod["terminationGracePeriodSeconds"] > celeryconfig.task_time_limit


def test_every_queue_scales_the_workers_and_keda_alone_does() -> None:
    (scaled,) = of_kind("ScaledObject")
    (worker,) = (one for one in of_kind("Deployment") if one["metadata"]["name"] == "worker")

    assert {trigger["metadata"]["listName"] for trigger in scaled["spec"]["triggers"]} == {
        queue.name for queue in celeryconfig.task_queues
    }
    assert scaled["spec"]["scaleTargetRef"]["name"] == "worker"
    assert "replicas" not in worker["spec"]
    assert scaled["spec"]["minReplicaCount"] > of_kind("PodDisruptionBudget")[0]["spec"]["maxUnavailable"]


def test_the_document_tells_how_to_make_the_secret_that_is_asked_for() -> None:
    asked = {
        variable["valueFrom"]["secretKeyRef"]["key"]
        for container in containers()
        for variable in container["env"]
        if "secretKeyRef" in variable["valueFrom"]
    }
    (redis,) = of_kind("TriggerAuthentication")
    asked |= {one["key"] for one in redis["spec"]["secretTargetRef"]}

    assert asked == set(re.findall(r"--from-literal=([\w-]+)=", DOC))
