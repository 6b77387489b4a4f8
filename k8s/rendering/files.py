"""The rendered files: which there are, how they are written, and the digests of the images they name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

from k8s.rendering.fields import Resource
from k8s.rendering.kustomization import FILE_NAME, build, read_kustomization
from pipeline_common.errors import ConfigError, InputError

ROOT: Final = Path(__file__).resolve().parent.parent
RENDERED: Final = {
    "services.yaml": "overlays/cluster/services",
    "own-services.yaml": "overlays/cluster/own-services",
    "pipeline.yaml": "overlays/cluster",
}
# Oldest: podFailurePolicy is stable since 1.31. Newest: the last one whose schemas the validator bundles.
SUPPORTED: Final = ("1.31", "1.37")
IMAGES: Final = "components/images"
_DIGEST: Final = "containerimage.digest"


def rendered_text(root: Path, name: str) -> str:
    """What the rendered file `name` must hold."""
    overlay = RENDERED[name]
    head = f"# Rendered from k8s/{overlay} by `make render`: edit that, not this.\n"
    return head + dump(build(root / overlay))


def dump(resources: list[Resource]) -> str:
    """Objects as YAML documents; text of several lines as a block."""
    # No references between parts: other readers of the file need not know them.
    return "".join("---\n" + yaml.dump(entry, Dumper=_Dumper, sort_keys=False, width=120) for entry in resources)


def render_files(root: Path) -> list[str]:
    """Write every rendered file; their names."""
    texts = {name: rendered_text(root, name) for name in RENDERED}
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    return list(texts)


def stale_files(root: Path) -> list[str]:
    """Names of the rendered files that are absent or differ from what their overlays say."""
    return [
        name
        for name in RENDERED
        if not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != rendered_text(root, name)
    ]


def invalid_objects(root: Path) -> list[str]:
    """What the API's own schemas, strictly read, refuse in the rendered files, one line each."""
    # A quarter of a second to import, and rendering does without.
    from kubernetes_validate import ValidationError, validate

    found = []
    for name in RENDERED:
        for entry in build(root / RENDERED[name]):
            for version in SUPPORTED:
                try:
                    validate(entry, version, strict=True)
                except ValidationError as error:
                    what = f"{entry.get('kind')} {entry['metadata']['name']}"
                    found.append(f"k8s/{name}: {what}, Kubernetes {version}: {error.message}")
    return found


def pin_images(root: Path, registry: str, metadata: Path) -> None:
    """Write the pushed images' names and digests into the one place that holds them.

    Args:
        root: the k8s folder.
        registry: host and path below which the images lie, without a closing slash.
        metadata: the build's JSON file; every image needs a digest there.

    Raises:
        InputError: the file is missing, unreadable, or lacks a digest.
        ConfigError: the registry's name cannot be one.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._:-]*(/[a-z0-9._-]+)*", registry):
        raise ConfigError(f"registry {registry!r}: expected a host and path such as registry.example/me")
    try:
        built = json.loads(metadata.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{metadata}: {error}; it is written when the images are pushed") from error
    path = root / IMAGES / FILE_NAME
    names = [image.name for image in read_kustomization(path.parent, "Component").images]
    entries = []
    for name in names:
        digest = str(built.get(name.removeprefix("alignment-pipeline-"), {}).get(_DIGEST))
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise InputError(f"{metadata} holds no {_DIGEST} for {name}; push all {len(names)} images in one build")
        entries.append(f"  - name: {name}\n    newName: {registry}/{name}\n    digest: {digest}\n")
    head, marker, _ = path.read_text(encoding="utf-8").partition("images:\n")
    path.write_text(head + marker + "".join(entries), encoding="utf-8")


class _Dumper(yaml.SafeDumper):
    """Indented lists, blocks for text of several lines, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
