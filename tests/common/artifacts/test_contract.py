"""What every store promises, tried on a directory and on two real bucket servers."""

from __future__ import annotations

import json

import pytest

from pipeline_common.artifacts import open_store
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.manifest import list_files
from tests.common.artifacts.made import make_artifact, random_bytes, read_tree

FILES = {"a.txt": b"alpha", "deep/b.bin": bytes(range(256)), "deep/empty": b"", "large.bin": random_bytes(2_500_000)}


@pytest.fixture
def source(tmp_path):
    return tmp_path / "made"


@pytest.fixture
def made(source, store):
    manifest = make_artifact(source, FILES)
    store.publish(source, manifest)
    return manifest


def test_what_is_published_is_found_verified_and_listed(store, another_machine, made):
    assert store.read_manifest("train/f00d") == made
    for reader in (store, another_machine):
        assert read_tree(reader.open(made)) == FILES
        assert reader.locate(made) == reader.open(made)
        assert reader.list_keys("train") == ["train/f00d"]
        assert reader.read_manifest("train/beef") is None


def test_a_store_where_nothing_was_kept_yet_is_empty(store):
    assert store.read_manifest("train/f00d") is None
    assert store.list_keys("train") == []
    assert store.get_bytes("runs/a/run.json") is None
    store.delete("runs/a/run.json")
    store.withdraw("train/f00d")


def test_small_objects_are_replaced_and_removed(store):
    store.put_bytes("runs/a/run.json", b"1")
    store.put_bytes("runs/a/run.json", b"two")
    assert store.get_bytes("runs/a/run.json") == b"two"
    store.delete("runs/a/run.json")
    assert store.get_bytes("runs/a/run.json") is None


def test_without_a_manifest_there_is_no_artifact(store, backstage, made):
    backstage.remove(f"{made.key}/manifest.json")
    assert store.read_manifest(made.key) is None
    assert store.list_keys("train") == []


def test_what_is_withdrawn_is_gone(store, backstage, made):
    store.withdraw(made.key)
    assert store.read_manifest(made.key) is None
    with pytest.raises(Exception, match=r"a\.txt|NoSuchKey"):
        backstage.read(f"{made.key}/a.txt")


def test_publishing_again_replaces(store, another_machine, made, tmp_path):
    other = make_artifact(tmp_path / "other", {"a.txt": b"beta", "new.txt": b"n"})
    store.publish(tmp_path / "other", other)
    for reader in (store, another_machine):
        assert reader.read_manifest(made.key) == other
        assert read_tree(reader.open(other)) == {"a.txt": b"beta", "new.txt": b"n"}


def test_artifacts_below_an_area_are_listed_oldest_first(store, tmp_path):
    for step in ("checkpoint-8", "checkpoint-16"):
        manifest = make_artifact(tmp_path / step, {"x": step.encode()}, step, "checkpoints/train/f00d")
        store.publish(tmp_path / step, manifest)
    assert set(store.list_keys("checkpoints/train/f00d")) == {
        "checkpoints/train/f00d/checkpoint-8",
        "checkpoints/train/f00d/checkpoint-16",
    }
    assert store.list_keys("train") == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "deep/b.bin has 255 bytes, the manifest says 256"),
        (lambda content: content[:7] + bytes([content[7] ^ 1]) + content[8:], "deep/b.bin differs from its sha256"),
    ],
)
def test_damage_is_named(another_machine, backstage, made, damage, message):
    key = f"{made.key}/deep/b.bin"
    backstage.write(key, damage(backstage.read(key)))
    with pytest.raises(InputError, match=message) as caught:
        another_machine.open(made)
    assert caught.value.exit_code == 3
    assert "python -m jobs.train" in str(caught.value)


def test_damage_in_a_large_file_is_named(another_machine, backstage, made):
    content = bytearray(backstage.read(f"{made.key}/large.bin"))
    content[2_000_000] ^= 1
    backstage.write(f"{made.key}/large.bin", bytes(content))
    with pytest.raises(InputError, match=r"large\.bin differs from its sha256"):
        another_machine.open(made)


def test_a_missing_file_is_named(another_machine, backstage, made):
    backstage.remove(f"{made.key}/a.txt")
    with pytest.raises(InputError, match=r"a\.txt is listed in the manifest but missing"):
        another_machine.open(made)


def test_a_manifest_of_another_schema_version_is_refused(store, backstage, made):
    key = f"{made.key}/manifest.json"
    backstage.write(key, json.dumps({**json.loads(backstage.read(key)), "schema_version": 99}).encode())
    with pytest.raises(InputError, match="schema version 99, this code reads 1"):
        store.read_manifest(made.key)


def test_a_damaged_manifest_is_refused(store, backstage, made):
    for content in ("{", "{}", "[]", '{"schema_version": 1}'):
        backstage.write(f"{made.key}/manifest.json", content.encode())
        with pytest.raises(InputError):
            store.read_manifest(made.key)


def test_a_moved_artifact_is_refused(store, backstage, made):
    backstage.write("train/beef/manifest.json", backstage.read(f"{made.key}/manifest.json"))
    with pytest.raises(InputError, match="moved or renamed"):
        store.read_manifest("train/beef")


def test_a_key_never_leaves_the_store(store):
    for key in ("../x", "/etc/x", "a//b", "a/../b", "", "a b", "a/.hidden"):
        with pytest.raises(InputError, match="artifact key"):
            store.get_bytes(key)


def test_a_listed_path_never_leaves_its_folder(another_machine, backstage, made):
    key = f"{made.key}/manifest.json"
    tree = json.loads(backstage.read(key))
    for path in ("../x", "/etc/x", "a/../../x", "..", "a//b", "a\\b", "a\nb", "manifest.json", ""):
        tree["files"][0]["path"] = path
        backstage.write(key, json.dumps(tree).encode())
        with pytest.raises(InputError, match="no path for a file of an artifact"):
            another_machine.read_manifest(made.key)


def test_a_link_is_no_file_of_an_artifact(tmp_path):
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="symbolic link"):
        list_files(tmp_path)


def test_a_name_outside_the_safe_alphabet_is_no_file_of_an_artifact(tmp_path):
    (tmp_path / "two words").write_text("")
    with pytest.raises(InputError, match="two words"):
        list_files(tmp_path)


def test_stores_are_chosen_by_scheme(tmp_path):
    assert open_store(str(tmp_path)).uri == tmp_path.as_uri()
    assert open_store(tmp_path.as_uri()).uri == tmp_path.as_uri()
    assert open_store("s3://bucket/a/b/", cache=tmp_path).uri == "s3://bucket/a/b"
    assert open_store("s3://bucket", cache=tmp_path).uri == "s3://bucket"
    for uri in ("ftp://host/x", "s3://", "s3:///x", "s3://bucket/a b", "s3://bucket/../x", "s3://bucket/a?b=c"):
        with pytest.raises(ConfigError, match="ARTIFACTS_URI"):
            open_store(uri, cache=tmp_path)


@pytest.mark.parametrize("uri", ["s3:/bucket/prefix", "s3:bucket", "file:relative", "file:/one/slash"])
def test_an_address_with_too_few_slashes_is_no_directory_of_that_name(uri):
    with pytest.raises(ConfigError, match="expected two slashes"):
        open_store(uri)
