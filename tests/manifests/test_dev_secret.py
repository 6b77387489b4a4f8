"""Credentials made in the cluster: by the real client against a server that speaks the API's paths and answers."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import yaml
from sqlalchemy.engine import make_url

from jobs.pipeline.dev_secret import derive_secrets, main, make_credentials
from pipeline_common.stages import REPOSITORY
from tests.manifests.pods import of_kind, pods
from tests.manifests.tree import built, named
from tests.servers.kubernetes_secrets import SecretsApi

NAMES = ["services-credentials", "pipeline-storage", "pipeline-database-owner"]


@pytest.fixture
def api(tmp_path):
    server = SecretsApi()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    (tmp_path / "kubeconfig").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "made", "cluster": {"server": url}}],
                "users": [{"name": "made", "user": {}}],
                "contexts": [{"name": "made", "context": {"cluster": "made", "user": "made"}}],
                "current-context": "made",
            }
        )
    )
    server.kubeconfig = str(tmp_path / "kubeconfig")
    yield server
    server.shutdown()
    server.server_close()


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys):
    """The command in this process; `run_process` is the Job's own way, a second slower."""

    def call(api):
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("KUBECONFIG", api.kubeconfig)
        monkeypatch.setenv("POD_NAMESPACE", "alignment")
        # The client keeps the path it first read.
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", api.kubeconfig)
        code = main()
        told = capsys.readouterr()
        return Done(code, told.out, told.err)

    return call


def run_process(api, **environment):
    """The command, as the Job runs it."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES_")}
    return subprocess.run(
        [sys.executable, "-m", "jobs.pipeline.dev_secret"],
        cwd=REPOSITORY,
        env={**known, "KUBECONFIG": api.kubeconfig, "POD_NAMESPACE": "alignment", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def check_agreement(api):
    """What the servers start with is what the pipeline is given."""
    assert [name for _, name in api.secrets] == NAMES
    credentials = api.values("services-credentials")
    storage = api.values("pipeline-storage")
    assert storage["AWS_ACCESS_KEY_ID"] == credentials["bucket-user"]
    assert storage["AWS_SECRET_ACCESS_KEY"] == credentials["bucket-password"]
    for name, role in (("pipeline-storage", "writer"), ("pipeline-database-owner", "owner")):
        url = make_url(api.values(name)["DATABASE_URL"])
        assert (url.drivername, url.username, url.host, url.port, url.database) == (
            "postgresql+psycopg2",
            f"pipeline_{role}",
            "database",
            5432,
            "results",
        )
        assert url.password == credentials[f"database-{role}-password"]


def test_three_secrets_from_one(api, run):
    done = run(api)
    assert done.returncode == 0, done.stderr
    check_agreement(api)
    assert done.stdout.splitlines() == [f"dev-secret   {name}: created" for name in NAMES]
    # Nothing that was made is told.
    made = {value for name in NAMES for value in api.values(name).values() if "password" in name or len(value) > 40}
    assert made
    assert not any(value in done.stdout + done.stderr for value in made)


def test_again_changes_nothing(api, run):
    run(api)
    before = dict(api.secrets)
    done = run(api)
    assert done.stdout.splitlines() == [f"dev-secret   {name}: exists, left as it is" for name in NAMES]
    assert api.secrets == before


@pytest.mark.parametrize("kept", [1, 2])
def test_killed_in_between_goes_on_with_the_same_passwords(api, run, kept):
    run(api)
    wanted = api.values("services-credentials")
    for name in NAMES[kept:]:
        del api.secrets["alignment", name]
    assert run(api).returncode == 0
    assert api.values("services-credentials") == wanted
    check_agreement(api)


def test_your_own_bucket_stays_chosen(api, run):
    own = {"data": {"ARTIFACTS_URI": base64.b64encode(b"s3://mine/here").decode()}}
    api.secrets["alignment", "pipeline-storage"] = own
    done = run(api)
    assert done.returncode == 0
    assert "pipeline-storage: exists, left as it is" in done.stdout
    assert api.secrets["alignment", "pipeline-storage"] == own
    assert len(api.secrets) == 3


def test_two_at_once_agree(api):
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: run_process(api), range(2)))
    assert [entry.returncode for entry in done] == [0, 0]
    credentials, storage = api.values("services-credentials"), api.values("pipeline-storage")
    assert storage["AWS_SECRET_ACCESS_KEY"] == credentials["bucket-password"]
    assert sum(entry.stdout.count("created") for entry in done) == 3


@pytest.mark.parametrize("trouble", [500, 429, "lost answer"])
def test_a_hiccup_is_tried_again(api, run, trouble):
    api.troubles = [trouble]
    done = run(api)
    assert done.returncode == 0, done.stderr
    check_agreement(api)


def test_a_long_outage_is_an_error_worth_another_attempt(api, run):
    api.troubles = [500] * 6
    done = run(api)
    assert done.returncode == 1
    assert "the API could not create the Secret services-credentials: 500" in done.stderr
    assert "Traceback" not in done.stderr
    assert api.secrets == {}


def test_refusal_names_the_role(api, run):
    api.forbidding = True
    done = run(api)
    assert done.returncode == 2
    assert "refused to create the Secret services-credentials: 403" in done.stderr
    assert "Role `dev-secret`" in done.stderr
    assert len(api.requests) == 1


def test_foreign_credentials_are_not_guessed_at(api, run):
    api.secrets["alignment", "services-credentials"] = {"data": {"bucket-user": "eA=="}}
    done = run(api)
    assert done.returncode == 2
    assert "lacks bucket-password, database-owner-password, database-password" in done.stderr


def test_no_cluster_is_one_line(api, tmp_path):
    done = run_process(api, KUBECONFIG=str(tmp_path / "none"))
    assert done.returncode == 2
    assert "set KUBECONFIG" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_credentials_are_random_and_safe_in_a_url():
    first, second = make_credentials(), make_credentials()
    assert all(first[name] != second[name] for name in first)
    for name, value in first.items():
        assert re.fullmatch(r"[A-Za-z0-9_-]+", value)
        assert len(value) >= (43 if "password" in name else 18)


def test_manifests_read_exactly_what_is_made():
    """Every key a service reads is made; the module writes the Secrets the pipeline's pods read."""
    resources = built("overlays/cluster/services", "overlays/cluster")
    credentials = make_credentials()
    read = {
        (entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"])
        for pod in pods(resources)
        for entry in pod.containers[0].get("env", [])
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert read == {("services-credentials", key) for key in credentials}
    made = derive_secrets(credentials)
    own = named(built("overlays/cluster/own-services"), "Secret", "pipeline-storage")
    assert set(own["stringData"]) == set(made["pipeline-storage"])
    services = {entry["metadata"]["name"] for entry in of_kind(resources, "Service")}
    assert make_url(made["pipeline-storage"]["DATABASE_URL"]).host in services
    assert made["pipeline-storage"]["AWS_ENDPOINT_URL_S3"] == "http://bucket:9000"
