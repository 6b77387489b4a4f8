from __future__ import annotations

import json

import pytest

from pipeline_common.artifacts import DirectoryStore, open_store
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.manifest import Manifest, list_files


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def made(tmp_path, store):
    source = tmp_path / "made"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_text("alpha")
    (source / "deep" / "b.bin").write_bytes(bytes(range(256)))
    manifest = Manifest(stage="train", fingerprint="f00d", payload={"x": 1}, run_id="r", files=list_files(source))
    store.publish(source, manifest)
    return manifest


def test_what_is_published_is_found_verified_and_listed(store, made):
    assert store.read_manifest("train/f00d") == made
    folder = store.open(made)
    assert (folder / "a.txt").read_text() == "alpha"
    assert store.list_keys("train") == ["train/f00d"]
    assert store.read_manifest("train/beef") is None


def test_without_a_manifest_there_is_no_artifact(store, made):
    store.withdraw(made.key)
    assert store.read_manifest(made.key) is None
    assert store.list_keys("train") == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 255 bytes, the manifest says 256"),
        (lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:]), "differs from its sha256"),
    ],
)
def test_damage_is_named(store, made, damage, message):
    damage(store.root / made.key / "deep" / "b.bin")
    with pytest.raises(InputError, match=message) as caught:
        store.open(made)
    assert "deep/b.bin" in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_manifest_of_another_schema_version_is_refused(store, made):
    path = store.root / made.key / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(InputError, match="schema version 99, this code reads 1"):
        store.read_manifest(made.key)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"schema_version": 1}'])
def test_a_damaged_manifest_is_refused(store, made, content):
    (store.root / made.key / "manifest.json").write_text(content)
    with pytest.raises(InputError):
        store.read_manifest(made.key)


def test_a_moved_artifact_is_refused(store, made):
    (store.root / "train" / "f00d").rename(store.root / "train" / "beef")
    with pytest.raises(InputError, match="moved or renamed"):
        store.read_manifest("train/beef")


@pytest.mark.parametrize("key", ["../x", "/etc/x", "a//b", "a/../b", "", "a b", "a/.hidden"])
def test_a_key_never_leaves_the_store(store, key):
    with pytest.raises(InputError, match="artifact key"):
        store.get_bytes(key)


def test_a_link_is_no_file_of_an_artifact(tmp_path):
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="symbolic link"):
        list_files(tmp_path)


def test_stores_are_chosen_by_scheme(tmp_path):
    assert open_store(str(tmp_path)).uri == tmp_path.as_uri()
    assert open_store(tmp_path.as_uri()).uri == tmp_path.as_uri()
    with pytest.raises(ConfigError, match="ftp"):
        open_store("ftp://host/x")
