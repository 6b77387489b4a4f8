"""The part of kustomize that this tree uses, so that rendering and its check need no cluster tool.

`build(folder)` gives the objects that `kubectl kustomize folder` gives; a test compares the two wherever kubectl is
installed. It is stricter: a field outside the part, or a patch that meets nothing, is an error.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonpatch
import yaml
from pydantic import ValidationError

from k8s.rendering.fields import ConfigMapSource, Image, Kustomization, Patch, Replacement, Resource, Target
from pipeline_common.errors import ConfigError

FILE_NAME: Final = "kustomization.yaml"
# libyaml's parser where PyYAML was built with it: eight times as fast.
_LOADER: Final[type[yaml.SafeLoader] | type[yaml.CSafeLoader]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Where a label of a template goes, by kind; kustomize's `includeTemplates`.
_TEMPLATES: Final = {
    "Job": ("spec.template",),
    "StatefulSet": ("spec.template",),
    "DaemonSet": ("spec.template",),
    "CronJob": ("spec.jobTemplate", "spec.jobTemplate.spec.template"),
}


def build(folder: Path) -> list[Resource]:
    """Every object of a kustomization, in the order of its lists.

    Raises:
        ConfigError: a kustomization is unreadable, or uses more than the part known here.
    """
    kustomization = read_kustomization(folder, "Kustomization")
    if kustomization.sort_options is None:
        raise ConfigError(f"{folder / FILE_NAME}: expected sortOptions: {{order: fifo}}, or Jobs are sorted by name")
    return _apply(kustomization, folder, [])


def read_kustomization(folder: Path, kind: str) -> Kustomization:
    """Read and check one kustomization.yaml.

    Raises:
        ConfigError: missing, malformed, of another kind, or with fields outside the part known here.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _LOADER)  # noqa: S506 - both are safe loaders
        found = Kustomization.model_validate(content)
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if found.kind != kind:
        raise ConfigError(f"{path} is a {found.kind}; expected a {kind}")
    return found


def pod_template(resource: Resource) -> Resource | None:
    """The pod template of a workload, None for any other object."""
    paths = _TEMPLATES.get(resource["kind"])
    if paths is None:
        return None
    template: Resource = _descend(resource, paths[-1])
    return template


def _apply(kustomization: Kustomization, folder: Path, resources: list[Resource]) -> list[Resource]:
    """The order of the steps is kustomize's."""
    for entry in kustomization.resources:
        path = folder / entry
        resources = [*resources, *(build(path) if path.is_dir() else _read_objects(path))]
    for source in kustomization.config_maps:
        resources = _generate(source, folder, resources)
    for entry in kustomization.components:
        resources = _apply(read_kustomization(folder / entry, "Component"), folder / entry, resources)
    _refuse_twins(resources, folder)
    for patch in kustomization.patches:
        resources = _patch(patch, folder, resources)
    if kustomization.namespace is not None:
        _set_namespace(kustomization.namespace, resources)
    for labels in kustomization.labels:
        _add_labels(labels.pairs, resources)
    for container in (found for resource in resources for found in _containers(resource)):
        for image in kustomization.images:
            container["image"] = _rename(container["image"], image)
    for replacement in kustomization.replacements:
        _replace(replacement, folder, resources)
    return resources


def _read_objects(path: Path) -> list[Resource]:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    objects = [entry for entry in yaml.load_all(path.read_text(encoding="utf-8"), _LOADER) if entry is not None]
    if any("namespace" in subject for entry in objects for subject in entry.get("subjects", [])):
        raise ConfigError(f"{path}: leave the subject's namespace out, or it does not follow its account to another")
    return objects


def _refuse_twins(resources: list[Resource], folder: Path) -> None:
    names = [(resource["kind"], resource["metadata"]["name"]) for resource in resources]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ConfigError(f"{folder / FILE_NAME}: {twins} come more than once")


def _generate(source: ConfigMapSource, folder: Path, resources: list[Resource]) -> list[Resource]:
    data = {Path(name).name: (folder / name).read_text(encoding="utf-8") for name in source.files}
    if source.behavior == "replace":
        for resource in _select(Target(kind="ConfigMap", name=re.escape(source.name)), resources, folder):
            resource["data"] = data
        return resources
    metadata = {"name": source.name, **({"labels": dict(source.options.labels)} if source.options.labels else {})}
    return [*resources, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}]


def _select(target: Target, resources: list[Resource], folder: Path) -> list[Resource]:
    found = [resource for resource in resources if target.matches(resource)]
    if not found:
        raise ConfigError(f"{folder / FILE_NAME}: nothing is a {target.kind} called {target.name}")
    return found


def _patch(patch: Patch, folder: Path, resources: list[Resource]) -> list[Resource]:
    text = patch.patch if patch.path is None else (folder / patch.path).read_text(encoding="utf-8")
    operations = yaml.load(text or "", _LOADER)  # noqa: S506 - both are safe loaders
    if not isinstance(operations, list):
        raise ConfigError(f"{folder / FILE_NAME}: a patch here is a list of JSON patch operations")
    chosen = {id(resource) for resource in _select(patch.target, resources, folder)}
    try:
        return [
            jsonpatch.apply_patch(resource, copy.deepcopy(operations)) if id(resource) in chosen else resource
            for resource in resources
        ]
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise ConfigError(f"{folder / FILE_NAME}: patch of {patch.target.kind} {patch.target.name}: {error}") from error


def _set_namespace(namespace: str, resources: list[Resource]) -> None:
    # A subject follows its account: the same name, in the namespace the account had (none at first).
    accounts = {
        (resource["metadata"]["name"], resource["metadata"].get("namespace"))
        for resource in resources
        if resource["kind"] == "ServiceAccount"
    }
    for resource in resources:
        if resource["kind"] == "Namespace":
            resource["metadata"]["name"] = namespace
            continue
        resource["metadata"]["namespace"] = namespace
        for subject in resource.get("subjects", []):
            if subject["kind"] == "ServiceAccount" and (subject["name"], subject.get("namespace")) in accounts:
                subject["namespace"] = namespace


def _add_labels(pairs: dict[str, str], resources: list[Resource]) -> None:
    for resource in resources:
        owners = [resource, *(_descend(resource, path) for path in _TEMPLATES.get(resource["kind"], ()))]
        for owner in owners:
            owner.setdefault("metadata", {}).setdefault("labels", {}).update(pairs)


def _containers(resource: Resource) -> Iterator[Resource]:
    template = pod_template(resource)
    if template is not None:
        yield from template["spec"].get("initContainers", [])
        yield from template["spec"]["containers"]


def _rename(reference: str, image: Image) -> str:
    """`reference` under its new name; the tag or digest it has stays unless a new one is given."""
    match = re.fullmatch(r"(?P<name>[^@]+?)(?P<version>(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?)", reference)
    if match is None or match["name"] != image.name:
        return reference
    version = match["version"]
    if image.digest is not None:
        version = f"@{image.digest}"
    elif image.new_tag is not None:
        version = f":{image.new_tag}"
    return f"{image.new_name or image.name}{version}"


def _replace(replacement: Replacement, folder: Path, resources: list[Resource]) -> None:
    source = replacement.source
    wanted = Target(kind=source.kind, name=re.escape(source.name))
    value = _descend(_select(wanted, resources, folder)[0], source.field_path)
    for target in replacement.targets:
        for resource in _select(target.select, resources, folder):
            for path in target.field_paths:
                parent, _, last = path.rpartition(".")
                # Only what is there is replaced: a misspelt path must not add a field.
                _descend(resource, path)
                _descend(resource, parent)[last] = value


def _descend(node: Any, path: str) -> Any:
    """The value at `a.b.[name=c].d`."""
    for part in re.findall(r"\[[^\]]+\]|[^.]+", path):
        if part.startswith("["):
            key, _, wanted = part[1:-1].partition("=")
            found = [entry for entry in node if entry.get(key) == wanted]
            if len(found) != 1:
                raise ConfigError(f"{path}: {len(found)} entries have {key}={wanted}; expected one")
            node = found[0]
        elif part in node:
            node = node[part]
        else:
            raise ConfigError(f"{path}: there is no {part!r} among {sorted(node)}")
    return node
