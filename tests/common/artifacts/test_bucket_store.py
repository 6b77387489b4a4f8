"""What only a bucket has: packs, local copies, TLS."""

from __future__ import annotations

import datetime
import io
import ipaddress
import tarfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline_common.artifacts.packing import Pack, build_pack, plan_packs
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.manifest import FileEntry
from tests.common.artifacts.made import make_artifact, random_bytes, read_tree
from tests.servers.buckets import grant, run_moto
from tests.servers.ports import free_port

MANY = {f"part-{number % 7}/{number:04d}.bin": random_bytes(number * 3, number) for number in range(250)}


def test_many_small_files_travel_in_packs_and_come_back(rclone, use, open_bucket, bucket_name, tmp_path):
    use(rclone)
    files = {**MANY, "large.bin": random_bytes(100_000)}
    manifest = make_artifact(tmp_path / "made", files)
    open_bucket().publish(tmp_path / "made", manifest)
    stored = rclone.folder / bucket_name / "some/prefix" / manifest.key
    objects = {path.relative_to(stored).as_posix() for path in stored.rglob("*") if path.is_file()}
    assert objects == {"packed-files/00000.tar", "large.bin", "manifest.json"}
    with tarfile.open(stored / "packed-files/00000.tar") as tar:
        assert set(tar.getnames()) == set(MANY)
    store = open_bucket(cache="another")
    assert read_tree(store.open(manifest)) == files
    # One file of a pack lost here: the pack is fetched again.
    (store.locate(manifest) / "part-0/0007.bin").unlink()
    assert read_tree(store.open(manifest)) == files


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "packed-files/00000.tar has .* bytes"),
        (lambda content: bytes(512) + content[512:], "packed-files/00000.tar .*is not in its place"),
        (lambda content: content.replace(MANY["part-4/0249.bin"], bytes(747)), "part-4/0249.bin .*differs"),
    ],
)
def test_damage_in_a_pack_is_named(moto, use, open_bucket, backstage_of, tmp_path, damage, message):
    use(moto)
    manifest = make_artifact(tmp_path / "made", MANY)
    open_bucket().publish(tmp_path / "made", manifest)
    backstage = backstage_of(moto)
    key = f"{manifest.key}/packed-files/00000.tar"
    backstage.write(key, damage(backstage.read(key)))
    with pytest.raises(InputError, match=message):
        open_bucket(cache="another").open(manifest)


def test_the_size_of_a_pack_is_known_before_it_is_built(tmp_path):
    sizes = (0, 1, 511, 512, 513, 9216, 65_536)
    manifest = make_artifact(tmp_path, {f"{size}.bin": random_bytes(size) for size in sizes})
    for count in range(1, len(sizes) + 1):
        pack = Pack("packed-files/0.tar", manifest.files[:count])
        content = build_pack(pack, tmp_path)
        assert len(content) == pack.size
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            assert tar.getnames() == [entry.path for entry in pack.entries]


def test_packs_are_bounded_and_few_files_are_plain():
    entries = [FileEntry(path=f"{number:04d}", size=60_000, sha256="") for number in range(200)]
    plain, packs = plan_packs(entries)
    assert plain == []
    # 69 files of 60,000 bytes fit into 4 MiB.
    assert [len(pack.entries) for pack in packs] == [69, 69, 62]
    assert plan_packs(entries[:99]) == (entries[:99], [])
    taken = [*entries, FileEntry(path="packed-files/00000.tar", size=1, sha256="")]
    assert plan_packs(taken) == (taken, [])


def test_a_link_in_the_local_copy_is_not_followed(moto, use, open_bucket, tmp_path):
    use(moto)
    manifest = make_artifact(tmp_path / "made", {"deep/a.txt": b"alpha", "b.txt": b"beta"})
    open_bucket().publish(tmp_path / "made", manifest)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    copy = tmp_path / "another" / manifest.key
    copy.mkdir(parents=True)
    (copy / "b.txt").symlink_to(outside / "kept")
    store = open_bucket(cache="another")
    assert read_tree(store.open(manifest)) == {"deep/a.txt": b"alpha", "b.txt": b"beta"}
    assert (outside / "kept").read_text() == "kept"
    (copy / "deep" / "a.txt").unlink()
    (copy / "deep").rmdir()
    (copy / "deep").symlink_to(outside)
    with pytest.raises(InputError, match="leads out of"):
        store.open(manifest)
    assert [path.name for path in outside.iterdir()] == ["kept"]


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority, private = folder / "authority.pem", folder / "key.pem"
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return authority, private


def test_tls_with_an_authority_of_ones_own(use, open_bucket, tmp_path):
    authority, private = make_certificate(tmp_path)
    port = free_port()
    with run_moto(port, "-s", "-c", str(authority), "-k", str(private)):
        found = grant(f"https://127.0.0.1:{port}", verify=str(authority))
        use(found, AWS_CA_BUNDLE=str(authority))
        manifest = make_artifact(tmp_path / "made", {"a.txt": b"alpha", "large.bin": random_bytes(3_000_000)})
        open_bucket().publish(tmp_path / "made", manifest)
        assert read_tree(open_bucket(cache="another").open(manifest)).keys() == {"a.txt", "large.bin"}
        use(found)
        with pytest.raises(ConfigError, match="certificate is not trusted; set AWS_CA_BUNDLE"):
            open_bucket().read_manifest(manifest.key)
