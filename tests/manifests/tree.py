"""Every way to put the k8s tree together: the overlays that ship, and every choice of components on each base."""

from __future__ import annotations

import copy
import itertools
import shutil
from functools import cache
from pathlib import Path

import yaml

from k8s.rendering.fields import Resource
from k8s.rendering.files import ROOT
from k8s.rendering.kustomization import FILE_NAME, build

OVERLAYS = sorted(path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "overlays").rglob(FILE_NAME))
OVERLAYS.remove("overlays/local/images")  # a component
COMPONENTS = sorted(path.parent.name for path in (ROOT / "components").glob(f"*/{FILE_NAME}"))
# image-digest reads images, so it comes after them; the services' parts are not for the pipeline's base.
PIPELINE_COMPONENTS = ("gpu", "kueue", "images", "image-digest")
NAMESPACE_COMPONENTS = ("minio", "postgres", "dev-secret", "own-services", "images")


def choices() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name -> (base, components) of every choice; `images` alone renames nothing without the dev secret."""
    found = {}
    for base, parts in (("pipeline", PIPELINE_COMPONENTS), ("namespace", NAMESPACE_COMPONENTS)):
        for size in range(len(parts) + 1):
            for chosen in itertools.combinations(parts, size):
                found["+".join((base, *chosen))] = (base, chosen)
    return found


def make_choice(folder: Path, base: str, components: tuple[str, ...]) -> Path:
    """Copy the tree, add an overlay of this choice, return it."""
    tree = folder / "k8s"
    if not tree.exists():
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("rendering", "__pycache__"))
    overlay = tree / "overlays" / "-".join(("choice", base, *components))
    overlay.mkdir()
    text = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "alignment",
        "sortOptions": {"order": "fifo"},
        "resources": [f"../../base/{base}"],
        "components": [f"../../components/{name}" for name in components],
        "labels": [
            {
                "includeTemplates": True,
                "pairs": {
                    "app.kubernetes.io/name": "alignment-pipeline",
                    "app.kubernetes.io/managed-by": "kustomize",
                },
            }
        ],
    }
    (overlay / FILE_NAME).write_text(yaml.safe_dump(text))
    return overlay


@cache
def _built(overlay: str) -> list[Resource]:
    return build(ROOT / overlay)


def built(*overlays: str) -> list[Resource]:
    """The objects of one or more overlays, free to be changed."""
    return [resource for overlay in overlays for resource in copy.deepcopy(_built(overlay))]


def named(resources: list[Resource], kind: str, name: str) -> Resource:
    (found,) = (entry for entry in resources if entry["kind"] == kind and entry["metadata"]["name"] == name)
    return found
