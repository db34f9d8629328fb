"""The Kubernetes manifests go with the settings, the command line and the table in docs/explanation/security.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click
import pytest
import yaml
from support.manifests import (
    BASE,
    COMPONENTS,
    Manifest,
    component_of,
    container_of,
    environment_of,
    kustomization,
    manifests,
    mount_of,
    of_kind,
    pod_of,
    secret_keys_of,
)

from pipeline.app import STAGES
from pipeline.cli.root import cli
from pipeline.contracts import SPECS, Topic
from pipeline.jobs.part_encryption import new_part_key, open_part_cipher
from pipeline.settings import Settings, load_settings
from pipeline.settings.review import review

DEPLOYMENTS: Final = of_kind("Deployment")
JOBS: Final = of_kind("Job", COMPONENTS / "topics")
RUNNING: Final = [pytest.param(one, id=component_of(one)) for one in (*DEPLOYMENTS, *JOBS)]
SERVING: Final = [pytest.param(one, id=component_of(one)) for one in DEPLOYMENTS]
SCALED: Final = [pytest.param(one, id=component_of(one)) for one in of_kind("ScaledObject", COMPONENTS / "keda")]
READS: Final = {
    "process": {Topic.BATCH_REQUESTED, Topic.BATCH_CHUNKS},
    "upload": {Topic.BATCH_PROCESSED},
    "confirm": {Topic.BATCH_UPLOADED, Topic.BATCH_FAILED},
}


def settings_in(manifest: Manifest, folder: Path) -> Settings:
    """The settings as one process gets them: its variables, and the files that are mounted for it and no others."""
    config, secrets = mount_of(manifest, "config"), mount_of(manifest, "secrets")
    here = str(folder / "secrets")
    (folder / "secrets").mkdir()
    for key in secret_keys_of(manifest):
        (folder / "secrets" / key).touch(mode=0o600)
        (folder / "secrets" / key).write_text("synthetic-secret-1")
    env = {name: value.replace(secrets, here) for name, value in environment_of(manifest).items()}
    assert env.pop("PIPELINE_CONFIG") == f"{config}/pipeline.toml"
    path = folder / "pipeline.toml"
    path.write_text((BASE / "pipeline.toml").read_text("utf-8").replace(secrets, here))
    warnings: list[str] = []
    settings = load_settings(path, env, webhook_secrets=component_of(manifest) == "ingress", warn=warnings.append)
    assert warnings == []
    return settings


def test_process_and_upload_get_the_key_of_parts(tmp_path: Path) -> None:
    for manifest in DEPLOYMENTS:
        if component_of(manifest) in ("process", "upload"):
            folder = tmp_path / component_of(manifest)
            folder.mkdir()
            settings = settings_in(manifest, folder)
            (key,) = settings.parts.keys
            assert key.file.exists()
            key.file.write_text(new_part_key())
            assert open_part_cipher(settings.parts).encrypts


def test_every_process_has_a_deployment_and_a_disruption_budget() -> None:
    assert {component_of(one) for one in DEPLOYMENTS} == {"ingress", *STAGES}
    budgets = {component_of(one): one for one in of_kind("PodDisruptionBudget")}
    for deployment in DEPLOYMENTS:
        budget = budgets.pop(component_of(deployment))["spec"]
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "an outage must not block node drains"
        selector = budget["selector"]
        assert selector["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert budgets == {}


@pytest.mark.parametrize("manifest", RUNNING)
def test_its_arguments_are_a_command(manifest: Manifest) -> None:
    command: click.Command = cli
    for argument in container_of(manifest)["args"]:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), argument)
        assert found is not None
        command = found
    assert not isinstance(command, click.Group)


@pytest.mark.parametrize("manifest", RUNNING)
def test_the_settings_load_with_the_secrets_that_are_mounted(manifest: Manifest, tmp_path: Path) -> None:
    settings = settings_in(manifest, tmp_path)
    assert settings.cluster.sasl
    assert settings.cluster.sasl.username == f"card-pipeline-{component_of(manifest)}"
    assert review(settings).problems == ()


@pytest.mark.parametrize("manifest", RUNNING)
def test_it_gets_no_secret_but_its_own(manifest: Manifest) -> None:
    """docs/explanation/security.md, "Least privilege", and what each process does."""
    own = {
        "ingress": {"acme-webhook", "acme-weavr-key", "acme-weavr-path"},
        "process": {"part-key"},
        "upload": {"part-key"},
        "confirm": {"acme-token"},
        "audit": {"audit-signing-key"},
        "topics": set(),
    }
    name = component_of(manifest)
    store = set() if name in ("ingress", "topics") else {"store-access-key-id", "store-secret-access-key"}
    assert secret_keys_of(manifest) == {"kafka-ca.crt", "kafka-password", *store, *own[name]}
    (secret,) = (one["secret"] for one in pod_of(manifest)["volumes"] if "secret" in one)
    assert secret["secretName"] == f"card-pipeline-{name}"
    assert secret["defaultMode"] & 0o007 == 0


@pytest.mark.parametrize("manifest", SERVING)
def test_ports_and_probes_are_those_of_the_settings(manifest: Manifest, tmp_path: Path) -> None:
    settings = settings_in(manifest, tmp_path)
    container = container_of(manifest)
    ports = {"management": settings.management.port}
    if component_of(manifest) == "ingress":
        ports["http"] = settings.ingress.port
    assert {one["name"]: one["containerPort"] for one in container["ports"]} == ports
    assert (settings.management.host, settings.ingress.host) == ("0.0.0.0", "0.0.0.0")  # noqa: S104 - in a pod
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"management"}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/healthz/live",
        "liveness": "/healthz/live",
        "readiness": "/healthz/ready",
    }


@pytest.mark.parametrize("manifest", SERVING)
def test_a_pod_is_given_the_time_that_an_orderly_stop_takes(manifest: Manifest, tmp_path: Path) -> None:
    settings = settings_in(manifest, tmp_path)
    needed = settings.cluster.ack_timeout_seconds
    if component_of(manifest) == "ingress":
        needed += settings.ingress.drain_seconds + settings.ingress.stop_grace_seconds
    else:
        needed += (
            settings.consumer.stop_grace_seconds
            + settings.consumer.for_consumer().commit_timeout_seconds
            + settings.cluster.request_timeout_seconds
        )
    assert pod_of(manifest)["terminationGracePeriodSeconds"] >= needed + 5


@pytest.mark.parametrize("manifest", RUNNING)
def test_a_pod_can_do_nothing_that_it_need_not(manifest: Manifest) -> None:
    pod, container = pod_of(manifest), container_of(manifest)
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert {next(iter(set(one) - {"name"})) for one in pod["volumes"]} <= {"configMap", "secret", "emptyDir"}


@pytest.mark.parametrize("manifest", RUNNING)
def test_its_image_is_of_this_version(manifest: Manifest) -> None:
    assert container_of(manifest)["image"] == f"card-pipeline:{version('card-pipeline')}"


@pytest.mark.parametrize("manifest", RUNNING)
def test_memory_is_bounded_and_cpu_is_not(manifest: Manifest) -> None:
    resources = container_of(manifest)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}


def test_pods_are_alike_but_for_what_their_process_needs() -> None:
    """So that a change to one is made to all."""

    def common(manifest: Manifest) -> Manifest:
        pod, container = dict(pod_of(manifest)), container_of(manifest)
        for name in ("args", "env", "ports", "resources"):
            container.pop(name)
        for name in ("terminationGracePeriodSeconds", "topologySpreadConstraints", "volumes"):
            pod.pop(name)
        return {**pod, "containers": [container]}

    first, *others = map(common, DEPLOYMENTS)
    assert [other for other in others if other != first] == []


def test_services_and_policies_lead_to_ports_that_exist() -> None:
    named = {(component_of(one), port["name"]) for one in DEPLOYMENTS for port in container_of(one)["ports"]}
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind("Service")}
    public = services["card-pipeline-ingress"]
    assert public["selector"]["app.kubernetes.io/component"] == "ingress"
    assert [port["targetPort"] for port in public["ports"]] == ["http"]
    assert ("ingress", "http") in named
    management = services["card-pipeline-management"]
    assert "app.kubernetes.io/component" not in management["selector"]
    assert [port["targetPort"] for port in management["ports"]] == ["management"]
    assert {component for component, name in named if name == "management"} == {"ingress", *STAGES}


def test_everything_is_forbidden_that_is_not_allowed() -> None:
    """docs/explanation/security.md: partners reach the ingress alone, which itself goes nowhere but to Kafka."""
    policies = {one["metadata"]["name"].removeprefix("card-pipeline-"): one["spec"] for one in of_kind("NetworkPolicy")}
    ours = {"matchLabels": {"app.kubernetes.io/name": "card-pipeline"}}
    assert policies["nothing"] == {"podSelector": ours, "policyTypes": ["Ingress", "Egress"]}
    (webhooks,) = policies["webhooks"]["ingress"]
    assert policies["webhooks"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "ingress"
    assert webhooks["ports"] == [{"protocol": "TCP", "port": "http"}]
    (components,) = policies["https-out"]["podSelector"]["matchExpressions"]
    assert set(components["values"]) == set(STAGES)
    (out,) = policies["https-out"]["egress"]
    assert out["ports"] == [{"protocol": "TCP", "port": 443}]
    assert "169.254.0.0/16" in out["to"][0]["ipBlock"]["except"], "no instance metadata"


def test_brokers_are_reached_at_the_port_that_the_settings_name() -> None:
    (policy,) = (one for one in of_kind("NetworkPolicy") if one["metadata"]["name"] == "card-pipeline-dns-and-kafka")
    _, kafka = policy["spec"]["egress"]
    servers = tomllib.loads((BASE / "pipeline.toml").read_text("utf-8"))["kafka"]["bootstrap_servers"]
    assert {port["port"] for port in kafka["ports"]} == {int(one.rpartition(":")[2]) for one in servers.split(",")}


@pytest.mark.parametrize("manifest", SCALED)
def test_workers_are_scaled_by_the_lag_of_their_own_group(manifest: Manifest, tmp_path: Path) -> None:
    name = component_of(manifest)
    (deployment,) = (one for one in DEPLOYMENTS if component_of(one) == name)
    kafka = settings_in(deployment, tmp_path).cluster
    triggers = [one["metadata"] for one in manifest["spec"]["triggers"]]
    assert manifest["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert {one["topic"] for one in triggers} == {f"{kafka.topic_prefix}{topic}" for topic in READS[name]}
    groups = {name, "chunks"} if name == "process" else {name}
    assert {one["consumerGroup"] for one in triggers} == {f"{kafka.group_prefix}{group}" for group in groups}
    assert {one["bootstrapServers"] for one in triggers} == {kafka.bootstrap_servers}
    assert manifest["spec"]["maxReplicaCount"] == max(SPECS[topic].partitions for topic in READS[name])
    for trigger in triggers:
        chunks = trigger["topic"].endswith(Topic.BATCH_CHUNKS)
        assert trigger["lagThreshold"] == ("4" if chunks else "1"), "a file in work is one record of lag"
        assert trigger["excludePersistentLag"] == "false", "a partition busy with a long file has persistent lag"
    down = manifest["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 300


@pytest.mark.parametrize("folder", [BASE, *sorted(path for path in COMPONENTS.iterdir())], ids=lambda path: path.name)
def test_kustomize_lists_every_file_and_no_namespace(folder: Path) -> None:
    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization(folder)["resources"]) == files
    assert "namespace" not in kustomization(folder)
    assert [one["metadata"]["name"] for one in manifests(folder) if "namespace" in one["metadata"]] == []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders them, is not installed")
def test_base_and_components_render_together(tmp_path: Path) -> None:
    overlay = {
        "namespace": "cards",
        "resources": [os.path.relpath(BASE, tmp_path)],
        "components": [os.path.relpath(one, tmp_path) for one in sorted(COMPONENTS.iterdir())],
        "images": [{"name": "card-pipeline", "newName": "registry.example.com/cards", "newTag": "1"}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    assert {one["metadata"]["namespace"] for one in rendered} == {"cards"}
    (config,) = (one for one in rendered if one["kind"] == "ConfigMap")
    running = [one for one in rendered if one["kind"] in ("Deployment", "Job")]
    assert len(running) == len(RUNNING)
    for one in running:
        (mounted,) = (volume["configMap"]["name"] for volume in pod_of(one)["volumes"] if "configMap" in volume)
        assert mounted == config["metadata"]["name"]
        assert container_of(one)["image"] == "registry.example.com/cards:1"
        scaled = component_of(one) in READS
        assert ("replicas" in one["spec"]) == (one["kind"] == "Deployment" and not scaled)
