"""docker-compose.yml and k8s/base run what this version has, the way it wants to be run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from taskyard.access.key_files import read_ring
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


def variables(name: str) -> set[str]:
    lines = (ROOT / "k8s" / "base" / name).read_text().split()
    return {line.partition("=")[0] for line in lines}


def test_every_variable_they_set_is_a_setting():
    kube = variables("urls.env") | variables("database.env") | variables("owner.env")
    compose = set(COMPOSE["x-database"])
    servers = {"TASKYARD_BROKER_URL", "TASKYARD_REDIS_URL", "TASKYARD_DATABASE_URL"}
    assert kube == servers | {"TASKYARD_BUILTIN_JOBS", "TASKYARD_PUBLIC_KEYS"}
    assert compose == kube
    assert kube <= {f"TASKYARD_{name.upper()}" for name in Settings.model_fields}


def test_only_what_writes_to_postgres_can_reach_it():
    writes = {"migrate", "mirror", "relay", "ops-workers"}
    secrets = {
        container["name"]: {each["secretRef"]["name"] for each in container.get("envFrom", ())}
        for pod in PODS.values()
        for container in pod["spec"]["containers"]
        if container["image"].startswith("taskyard")
    }
    reach = {name for name, held in secrets.items() if held - {"taskyard-urls"}}
    assert reach == writes
    assert {name for name, held in secrets.items() if "taskyard-owner" in held} == {"migrate"}
    services = {
        name
        for name, service in COMPOSE["services"].items()
        if "TASKYARD_DATABASE_URL" in service.get("environment", {})
    }
    assert services == {"migrate", "mirror", "relay", "worker-ops"}


def test_only_the_migration_is_sure_to_be_the_owner_of_the_schema():
    urls = {
        name: service["environment"]["TASKYARD_DATABASE_URL"]
        for name, service in COMPOSE["services"].items()
        if "TASKYARD_DATABASE_URL" in service.get("environment", {})
    }
    owner = urls.pop("migrate")
    assert "RUNTIME_URL" not in owner
    assert all(url.startswith("${RUNTIME_URL:-postgresql") for url in urls.values())


def test_every_process_reads_the_key_ring_and_holds_no_private_key():
    assert len(read_ring(ROOT / "k8s" / "base" / "keys.toml")) == 0
    for pod in PODS.values():
        for container in pod["spec"]["containers"]:
            if container["image"].startswith("taskyard"):
                mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
                assert mounts["/etc/taskyard"]["readOnly"] is True
    for name, service in COMPOSE["services"].items():
        if service.get("image", "").startswith("taskyard"):
            assert service["volumes"] == [
                "${KEY_RING:-./k8s/base/keys.toml}:/etc/taskyard/keys.toml:ro"
            ], name


def test_redis_never_evicts_and_keeps_an_append_only_file():
    container = PODS["StatefulSet/redis"]["spec"]["containers"][0]
    for words in (container["args"], COMPOSE["services"]["redis"]["command"]):
        assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
        assert words[words.index("--appendonly") + 1] == "yes"
