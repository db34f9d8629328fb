"""What deploy/k8s holds, read with a YAML library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml
from support.paths import ROOT

DEPLOY: Final = ROOT / "deploy"
BASE: Final = DEPLOY / "k8s" / "base"
COMPONENTS: Final = DEPLOY / "k8s" / "components"

Manifest = dict[str, Any]


def manifests(folder: Path) -> list[Manifest]:
    """Every object in a folder's files, but for kustomize's own."""
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [one for path in files for one in yaml.safe_load_all(path.read_text("utf-8"))]


def kustomization(folder: Path) -> Manifest:
    """What kustomize reads there."""
    found: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    return found


def of_kind(kind: str, *folders: Path) -> list[Manifest]:
    """The objects of one kind, in the base unless folders are named."""
    return [one for folder in folders or (BASE,) for one in manifests(folder) if one["kind"] == kind]


def component_of(manifest: Manifest) -> str:
    """Which process an object is about."""
    return str(manifest["metadata"]["labels"]["app.kubernetes.io/component"])


def pod_of(manifest: Manifest) -> Manifest:
    """The pod of a Deployment or Job."""
    found: Manifest = manifest["spec"]["template"]["spec"]
    return found


def container_of(manifest: Manifest) -> Manifest:
    """The one container of a Deployment or Job."""
    (found,) = pod_of(manifest)["containers"]
    return dict(found)


def environment_of(manifest: Manifest) -> dict[str, str]:
    """The variables of a Deployment or Job."""
    return {one["name"]: one["value"] for one in container_of(manifest)["env"]}


def secret_keys_of(manifest: Manifest) -> set[str]:
    """Which keys of its Secret a Deployment or Job mounts."""
    volumes = (one["secret"] for one in pod_of(manifest)["volumes"] if "secret" in one)
    return {item["path"] for secret in volumes for item in secret["items"]}


def mount_of(manifest: Manifest, volume: str) -> str:
    """Return the path of a volume in the container."""
    return next(str(one["mountPath"]) for one in container_of(manifest)["volumeMounts"] if one["name"] == volume)
