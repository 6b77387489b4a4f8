"""The renderer: equal to kustomize where it is installed, strict where kustomize is silent, and never stale."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import yaml

from k8s.rendering.fields import (
    ConfigMapSource,
    GeneratorOptions,
    Image,
    Kustomization,
    Labels,
    Patch,
    Replacement,
    Target,
)
from k8s.rendering.files import IMAGES, RENDERED, ROOT, SUPPORTED, dump, pin_images, render_files, stale_files
from k8s.rendering.kustomization import FILE_NAME, build
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.stages import REPOSITORY, STAGE_NAMES
from tests.manifests.tree import COMPONENTS, NAMESPACE_COMPONENTS, OVERLAYS, PIPELINE_COMPONENTS, choices, make_choice

ASSETS = REPOSITORY / "tests" / "manifests" / "assets"


@pytest.fixture
def tree(tmp_path):
    """A copy of the k8s tree, free to be changed."""
    shutil.copytree(ROOT, tmp_path / "k8s", ignore=shutil.ignore_patterns("rendering", "__pycache__"))
    return tmp_path / "k8s"


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) >= 1, old
    path.write_text(text.replace(old, new, 1))


def test_the_overlays_and_components_are_these():
    assert OVERLAYS == [
        "overlays/cluster",
        "overlays/cluster/own-services",
        "overlays/cluster/services",
        "overlays/local",
        "overlays/local/cpu",
        "overlays/local/services",
    ]
    assert set(COMPONENTS) == {*PIPELINE_COMPONENTS, *NAMESPACE_COMPONENTS}
    assert len(choices()) == 2 ** len(PIPELINE_COMPONENTS) + 2 ** len(NAMESPACE_COMPONENTS)


def test_every_field_of_the_part_is_made_as_kustomize_makes_it():
    """Golden: real kustomize's own output for a tree that uses every field and its corners."""
    made = list(yaml.safe_load_all((ASSETS / "kustomize-5.5.0.yaml").read_text()))
    assert len(made) == 11
    assert build(ASSETS / "kustomization") == made


def test_the_golden_tree_uses_every_field():
    text = "".join(path.read_text() for path in (ASSETS / "kustomization").rglob("*.yaml"))
    models = (Kustomization, Target, Patch, Image, Labels, GeneratorOptions, ConfigMapSource, Replacement)
    fields = {field.alias or name for model in models for name, field in model.model_fields.items()}
    assert len(fields) > 25
    assert [field for field in sorted(fields) if f"{field}:" not in text] == []


def kustomize():
    """`kubectl kustomize`, where a kubectl with kustomize 5 is installed."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return None
    asked = [kubectl, "version", "--client", "--output=json"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    version = json.loads(done.stdout or "{}").get("kustomizeVersion", "")
    return [kubectl, "kustomize"] if version.startswith("v5.") else None


def test_every_choice_of_components_renders(tmp_path):
    """And is compared with real kustomize's, for the overlays and the fullest choices, where that is installed."""
    folders = [make_choice(tmp_path, base, components) for base, components in choices().values()]
    overlays = [ROOT / overlay for overlay in OVERLAYS]
    assert (len(folders), len(overlays)) == (48, 6)
    for folder in (*overlays, *folders):
        objects = build(folder)
        assert len(objects) >= 5, folder
        assert list(yaml.safe_load_all(dump(objects))) == objects, folder
    command = kustomize()
    if command is not None:
        for folder in (*overlays, ASSETS / "kustomization", folders[15], folders[-1]):
            done = subprocess.run([*command, folder], capture_output=True, text=True, check=True)
            assert list(yaml.safe_load_all(done.stdout)) == build(folder), folder


def test_what_is_committed_is_what_the_overlays_say():
    assert stale_files(ROOT) == []
    for name in RENDERED:
        assert (ROOT / name).is_file()


def run_renderer(tree, *arguments):
    """The command in a copy of the repository: its folder is where its code is."""
    shutil.copytree(ROOT / "rendering", tree / "rendering", dirs_exist_ok=True)
    if not (tree.parent / "pipeline_common").exists():
        (tree.parent / "pipeline_common").symlink_to(REPOSITORY / "pipeline_common")
    return subprocess.run(
        [sys.executable, "-m", "k8s.rendering", *arguments],
        cwd=tree.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("changed", ["pipeline.yaml", "base/pipeline/train.yaml"])
def test_a_stale_file_is_named_and_mended(tree, changed):
    edit(tree / changed, "86400", "90000")
    done = run_renderer(tree, "--check")
    assert (done.returncode, done.stderr) == (1, "k8s/pipeline.yaml is not what its overlay says; run `make render`\n")
    assert run_renderer(tree).stdout.split() == [f"k8s/{name}" for name in RENDERED]
    assert run_renderer(tree, "--check").returncode == 0
    assert ("90000" in (tree / "pipeline.yaml").read_text()) is (changed != "pipeline.yaml")


def test_a_field_the_api_does_not_know_is_named(tree):
    edit(tree / "base" / "pipeline" / "train.yaml", "activeDeadlineSeconds", "activeDeadlineSecond")
    assert run_renderer(tree).returncode == 0
    done = run_renderer(tree, "--check")
    assert done.returncode == 1
    assert "k8s/pipeline.yaml: CronJob train, Kubernetes 1.31: " in done.stderr
    assert "activeDeadlineSecond" in done.stderr
    assert len(done.stderr.splitlines()) == len(SUPPORTED)


def test_a_missing_rendered_file_is_stale(tree):
    (tree / "services.yaml").unlink()
    assert stale_files(tree) == ["services.yaml"]


METADATA = {
    name: {"containerimage.digest": f"sha256:{index:064x}"} for index, name in enumerate((*STAGE_NAMES, "orchestrator"))
}


def test_pinning_writes_every_digest_in_one_place(tree, tmp_path):
    metadata = tmp_path / "images.json"
    metadata.write_text(json.dumps(METADATA))
    before = {path: path.read_bytes() for path in tree.rglob("*.yaml")}
    pin_images(tree, "registry.example:5000/me/team", metadata)
    changed = [path for path, content in before.items() if path.read_bytes() != content]
    assert changed == [tree / IMAGES / FILE_NAME]
    render_files(tree)
    text = (tree / "pipeline.yaml").read_text()
    for name, entry in METADATA.items():
        reference = f"registry.example:5000/me/team/alignment-pipeline-{name}@{entry['containerimage.digest']}"
        # as the image, and as what provenance will say
        assert text.count(reference) == 2, name
        assert (reference in (tree / "services.yaml").read_text()) is (name == "orchestrator")


@pytest.mark.parametrize(
    ("registry", "metadata", "error", "words"),
    [
        ("registry.example/me", '{"train": {}}', InputError, "no containerimage.digest for alignment-pipeline-"),
        ("registry.example/me", "not json", InputError, "it is written when the images are pushed"),
        ("registry.example/me", None, InputError, "No such file"),
        ("https://registry.example", json.dumps(METADATA), ConfigError, "expected a host and path"),
    ],
)
def test_pinning_refuses_what_it_cannot_pin(tree, tmp_path, registry, metadata, error, words):
    path = tmp_path / "images.json"
    if metadata is not None:
        path.write_text(metadata)
    before = (tree / IMAGES / FILE_NAME).read_bytes()
    with pytest.raises(error, match=words):
        pin_images(tree, registry, path)
    assert (tree / IMAGES / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (f"overlays/cluster/{FILE_NAME}", "components:", "commonLabels: {a: b}\ncomponents:", "Extra inputs"),
        (f"overlays/cluster/{FILE_NAME}", "../../components/gpu", "../../components/gpus", "does not exist"),
        (f"overlays/cluster/{FILE_NAME}", "../../components/gpu", "../../base/config", "expected a Component"),
        (f"overlays/cluster/{FILE_NAME}", "sortOptions:\n  order: fifo\n", "", "sorted by name"),
        (f"components/gpu/{FILE_NAME}", "environment|train|evaluate", "trian", "nothing is a CronJob called trian"),
        ("components/gpu/one-gpu.yaml", "limits/nvidia", "limit/nvidia", "patch of CronJob"),
        ("components/gpu/one-gpu.yaml", "- op: add", "- op: ad", "patch of CronJob"),
        (f"components/image-digest/{FILE_NAME}", "[name=IMAGE_DIGEST]", "[name=IMAGE]", "0 entries have name=IMAGE"),
        (f"components/image-digest/{FILE_NAME}", "].value", "].valeu", "no 'valeu'"),
        (f"base/pipeline/{FILE_NAME}", "  - train.yaml", "  - train.yaml\n  - train.yaml", "come more than once"),
        (f"base/pipeline/{FILE_NAME}", "  - train.yaml", "  - trian.yaml", "trian.yaml does not exist"),
        (
            "base/pipeline/accounts.yaml",
            "  name: pipeline\nsubjects:\n  - kind",
            "  name: p\nsubjects:\n  - namespace: x\n    kind",
            "follow",
        ),
        (f"base/config/{FILE_NAME}", "disableNameSuffixHash: true", "immutable: true", "Field required"),
    ],
)
def test_a_mistake_in_the_tree_is_named(tree, file, old, new, words):
    edit(tree / file, old, new)
    with pytest.raises(ConfigError, match=words):
        build(tree / "overlays" / "cluster")


def test_another_namespace_is_one_line_in_each_overlay(tree):
    edit(tree / "overlays" / "cluster" / FILE_NAME, "namespace: alignment", "namespace: elsewhere")
    edit(tree / "overlays" / "cluster" / "services" / FILE_NAME, "namespace: alignment", "namespace: elsewhere")
    for overlay in ("cluster", "cluster/services"):
        for entry in build(tree / "overlays" / overlay):
            inside = entry["metadata"]["name"] if entry["kind"] == "Namespace" else entry["metadata"]["namespace"]
            assert inside == "elsewhere"
            assert all(subject["namespace"] == "elsewhere" for subject in entry.get("subjects", []))
