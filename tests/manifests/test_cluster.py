"""The manifests before a real API server, in a namespace of their own that is deleted afterwards: `pytest -m cluster`.

Nothing is scheduled: what would make pods is sent as a server-side dry run.
"""

from __future__ import annotations

import shutil
import subprocess
import uuid

import pytest

from k8s.rendering.files import ROOT, dump
from k8s.rendering.kustomization import FILE_NAME, build
from tests.manifests.tree import OVERLAYS

pytestmark = pytest.mark.cluster
INERT = {"Namespace", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "ConfigMap"}


def kubectl(*arguments, text=None):
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """(namespace, overlay -> its objects there); the objects that start nothing are applied."""
    namespace = f"alignment-check-{uuid.uuid4().hex[:8]}"
    tree = tmp_path_factory.mktemp("tree") / "k8s"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("rendering", "__pycache__"))
    for overlay in OVERLAYS:
        path = tree / overlay / FILE_NAME
        path.write_text(path.read_text().replace("namespace: alignment\n", f"namespace: {namespace}\n"))
    objects = {overlay: build(tree / overlay) for overlay in OVERLAYS}
    try:
        for overlay in ("overlays/cluster/services", "overlays/cluster"):
            inert = [entry for entry in objects[overlay] if entry["kind"] in INERT]
            done = kubectl("apply", "-f", "-", text=dump(inert))
            assert done.returncode == 0, done.stderr
        yield namespace, objects
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_takes_every_object_without_a_warning(installation, overlay):
    """Defaults, validation and Pod Security: a pod template that is not `restricted` draws a warning."""
    _, objects = installation
    done = kubectl("apply", "--dry-run=server", "-f", "-", text=dump(objects[overlay]))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(objects[overlay])
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("account", "verb", "resource", "allowed"),
    [
        ("pipeline", "create", "jobs.batch", True),
        ("pipeline", "delete", "jobs.batch", True),
        ("pipeline", "get", "cronjobs.batch/train", True),
        ("pipeline", "list", "events", True),
        ("pipeline", "get", "pods/log", True),
        ("pipeline", "get", "cronjobs.batch/other", False),
        ("pipeline", "patch", "jobs.batch", False),
        ("pipeline", "delete", "pods", False),
        ("pipeline", "get", "secrets", False),
        ("pipeline", "create", "pods/exec", False),
        ("stage", "list", "pods", False),
        ("stage", "get", "secrets", False),
        ("dev-secret", "create", "secrets", True),
        ("dev-secret", "get", "secrets/services-credentials", True),
        ("dev-secret", "get", "secrets/pipeline-storage", False),
        ("dev-secret", "update", "secrets", False),
    ],
)
def test_an_account_may_do_its_work_and_nothing_else(installation, account, verb, resource, allowed):
    namespace, _ = installation
    subresource = []
    if resource.startswith("pods/"):
        resource, _, name = resource.partition("/")
        subresource = [f"--subresource={name}"]
    asked = kubectl(
        "auth", "can-i", verb, resource, *subresource, "-n", namespace,
        f"--as=system:serviceaccount:{namespace}:{account}",
    )  # fmt: skip
    assert (asked.stdout.strip() == "yes") is allowed, asked.stderr
