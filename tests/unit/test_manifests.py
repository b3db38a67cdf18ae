"""docker-compose.yml and k8s/base run what this version has, the way it wants to be run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from taskyard.jobs.catalogue import Catalogue
from taskyard.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
KUSTOMIZATION = yaml.safe_load((ROOT / "k8s" / "base" / "kustomization.yaml").read_text())
POOLS = {"plan", "exec", "locator", "ops"}
COMMANDS = {"worker", "mirror", "relay", "migrate"}
DRAIN_S = 30


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in KUSTOMIZATION["resources"]:
        for document in yaml.safe_load_all((ROOT / "k8s" / "base" / name).read_text()):
            yield f"{document['kind']}/{document['metadata']['name']}", document


DOCUMENTS = dict(documents())
PODS = {
    name: document["spec"]["template"]
    for name, document in DOCUMENTS.items()
    if "template" in document.get("spec", {})
}


def longest_limit_s(pool: str) -> float:
    limits = [t.time_limit_s for t in Catalogue.load(built_in=True).values() if t.queue == pool]
    return max(limits, default=300.0)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_manifest_fits_the_schema_of_kubernetes(name):
    kubernetes_validate.validate(DOCUMENTS[name], "1.32", strict=True)


def test_both_run_every_pool_the_mirror_the_relay_and_the_migration():
    compose = [
        tuple(s["command"])
        for s in COMPOSE["services"].values()
        if s.get("image", "").startswith("taskyard")
    ]
    kube = [
        tuple(container["args"])
        for pod in PODS.values()
        for container in pod["spec"]["containers"]
        if container["image"].startswith("taskyard")
    ]
    expected = {("mirror",), ("relay",), ("migrate",)} | {("worker", "--pool", p) for p in POOLS}
    assert set(compose) == expected
    assert set(kube) == expected


@pytest.mark.parametrize("pool", sorted(POOLS))
def test_a_worker_gets_the_time_to_finish_what_it_runs(pool):
    need = longest_limit_s(pool) + DRAIN_S
    grace = DOCUMENTS[f"Deployment/{pool}-workers"]["spec"]["template"]["spec"]
    assert need <= grace["terminationGracePeriodSeconds"] <= Settings().visibility_timeout_s
    compose = COMPOSE["services"][f"worker-{pool}"]["stop_grace_period"]
    assert need <= float(compose.removesuffix("s"))


@pytest.mark.parametrize("name", PODS)
def test_every_pod_runs_with_the_least_rights(name):
    spec = PODS[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        assert {"requests", "limits"} <= set(container["resources"])


@pytest.mark.parametrize("name", PODS)
def test_no_service_can_name_a_setting_by_accident(name):
    # A Service `taskyard-redis` would inject TASKYARD_REDIS_PORT, an unknown setting: no start.
    assert PODS[name]["spec"]["enableServiceLinks"] is False


def test_every_variable_they_set_is_a_setting():
    lines = (ROOT / "k8s" / "base" / "urls.env").read_text().split()
    given = {line.partition("=")[0] for line in lines} | set(COMPOSE["x-taskyard"]["environment"])
    fields = {f"TASKYARD_{name.upper()}" for name in Settings.model_fields}
    urls = {"TASKYARD_BROKER_URL", "TASKYARD_REDIS_URL", "TASKYARD_DATABASE_URL"}
    assert given == urls | {"TASKYARD_BUILTIN_JOBS"}
    assert given <= fields


def test_redis_never_evicts_and_keeps_an_append_only_file():
    container = PODS["StatefulSet/redis"]["spec"]["containers"][0]
    for words in (container["args"], COMPOSE["services"]["redis"]["command"]):
        assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
        assert words[words.index("--appendonly") + 1] == "yes"
