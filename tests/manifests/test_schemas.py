"""Every overlay and choice against the API's own schemas, strictly: oldest and newest minor version supported."""

from __future__ import annotations

import pytest
from kubernetes_validate import ValidationError, validate

from k8s.rendering.files import SUPPORTED
from k8s.rendering.kustomization import build
from tests.manifests.tree import OVERLAYS, built, choices, make_choice, named


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_object_of_every_overlay_is_valid(version):
    objects = [entry for overlay in OVERLAYS for entry in built(overlay)]
    for entry in objects:
        validate(entry, version, strict=True)
    assert len(objects) == 97


def test_every_choice_of_components_is_valid(tmp_path):
    """Each object once: a choice mostly repeats another's."""
    seen = set()
    for base, components in choices().values():
        for entry in build(make_choice(tmp_path, base, components)):
            if repr(entry) not in seen:
                seen.add(repr(entry))
                for version in SUPPORTED:
                    validate(entry, version, strict=True)
    assert len(seen) > 60


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize(
    "change",
    [
        lambda job: job["spec"].update(backoffLimt=1),
        lambda job: job["spec"].update(backoffLimit="2"),
        lambda job: job["spec"]["template"]["spec"]["containers"][0].update(envFrom={}),
        lambda job: job["spec"]["podFailurePolicy"]["rules"][0].pop("action"),
    ],
    ids=["misspelt", "text for a number", "mapping for a list", "missing"],
)
def test_the_schemas_can_refuse(version, change):
    job = named(built("overlays/cluster"), "Job", "pipeline")
    validate(job, version, strict=True)
    change(job)
    with pytest.raises(ValidationError):
        validate(job, version, strict=True)
