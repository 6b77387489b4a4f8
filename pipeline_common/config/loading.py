"""Profiles and files read, overrides applied, every mistake told at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from pipeline_common.config.section import SecretValueError
from pipeline_common.config.tree import Config, valid_keys
from pipeline_common.errors import ConfigError

PROFILES: Final = Path(__file__).parent.parent / "profiles"


def profile_names() -> list[str]:
    """Names of the profiles that ship with the project."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_config(profile_or_file: str, overrides: Sequence[str] = ()) -> Config:
    """Read a profile (or a YAML file), apply `section.field=value` overrides, validate.

    Raises:
        ConfigError: with every mistake at once, each with its path.
    """
    tree = _read_profile(profile_or_file, seen=())
    problems = list(_apply_overrides(tree, overrides))
    tree.setdefault("profile", Path(profile_or_file).stem)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        problems += _explain(error)
    if problems:
        lines = "\n".join(f"  - {line}" for line in problems)
        raise ConfigError(f"the configuration {profile_or_file!r} has {len(problems)} mistake(s):\n{lines}")
    return config


def _read_profile(profile_or_file: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = PROFILES / f"{profile_or_file}.yaml"
    if profile_or_file not in profile_names():
        path = Path(profile_or_file)
        if not path.is_file():
            known = ", ".join(profile_names())
            near = difflib.get_close_matches(profile_or_file, profile_names(), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(
                f"--config {profile_or_file!r} is neither a profile nor a file{hint}; profiles are {known}, "
                "or give the path of a YAML file"
            )
    if path in seen:
        raise ConfigError(f"{path.name}: `extends` goes in a circle through {', '.join(p.name for p in seen)}")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from error
    loaded = {} if loaded is None else loaded
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds a {type(loaded).__name__}; expected a mapping of sections")
    parent = loaded.pop("extends", None)
    if parent is None:
        return loaded
    base = _read_profile(str(parent), (*seen, path))
    base.pop("profile", None)
    return _merge(base, loaded)


def _merge(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value
    return base


def _apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    """Write each override into `tree`; yield what is wrong with the others."""
    known = set(valid_keys())
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals:
            yield f"{override!r}: expected section.field=value, for example train.max_steps=10"
            continue
        if key not in known:
            yield _unknown_key(key)
            continue
        try:
            value = yaml.safe_load(raw) if raw.strip() else ""
        except yaml.YAMLError:
            # What is no YAML is a text, "@here" say; whether the field takes it, the validation finds out.
            value = raw
        *sections, field = key.split(".")
        node = tree
        for section in sections:
            child = node.get(section)
            if not isinstance(child, dict):
                child = node[section] = {}
            node = child
        node[field] = value


def _explain(error: ValidationError) -> list[str]:
    """One line for each field: where it may be of several types, with what each of them expects."""
    told: dict[str, list[str]] = {}
    came: dict[str, str] = {}
    unknown = []
    for detail in error.errors(include_url=False):
        if detail["type"] == "extra_forbidden":
            unknown.append(_unknown_key(".".join(map(str, detail["loc"]))))
            continue
        path = _field_of(detail["loc"])
        told.setdefault(path, []).append(_expectation(detail))
        secret = isinstance(detail.get("ctx", {}).get("error"), SecretValueError)
        came[path] = "" if secret else f" (came: {detail.get('input')!r})"
    return [*unknown, *(f"{path}: {'; or '.join(said)}{came[path]}" for path, said in told.items())]


def _field_of(loc: Sequence[int | str]) -> str:
    """The field's path, and the place in its list: after a field pydantic names the alternatives of its type, too."""
    known = set(valid_keys())
    parts = [str(part) for part in loc]
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in known:
            return ".".join([*parts[:end], *(str(part) for part in loc[end:] if isinstance(part, int))])
    return ".".join(parts)


def _expectation(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "tuple_type":
        return f"Input should be a list, such as [{detail.get('input')}]"
    if detail["type"] == "model_type":
        return "Input should be a mapping of fields"
    return str(detail["msg"])


def _unknown_key(path: str) -> str:
    known = valid_keys()
    inside = next((key for key in known if key.startswith(f"{path}.")), None)
    if inside:
        return f"{path}: a section, not a key; name a key in it, such as {inside}"
    near = difflib.get_close_matches(path, [*known, *{key.rpartition(".")[0] for key in known} - {""}], n=1, cutoff=0.5)
    leaf = path.rpartition(".")[2]
    if not near:
        near = [key for key in known if key.rpartition(".")[2] == leaf][:1]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{path}: no such key{hint}"
