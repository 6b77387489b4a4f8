"""SIGTERM while a library's code runs whose exceptions nobody sees, such as a finalizer: it must not be lost."""

import os

from tests.pipeline.cluster.running import publish, wait_for
from tests.servers.stage_scripts import Step

SWALLOWING = """
import signal

install = signal.signal

def swallowing(number, handler):
    if number != signal.SIGTERM or not callable(handler):
        return install(number, handler)
    def handle(*arguments):
        try:
            handler(*arguments)
        except Exception:
            print("nobody saw this", flush=True)
    return install(number, handle)

signal.signal = swallowing
"""


def test_a_stop_whose_exception_was_lost_still_ends_the_orchestrator(make_cluster, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(SWALLOWING)
    cluster = make_cluster(train=[Step("hang")])
    publish(cluster)
    path = os.pathsep.join(filter(None, [str(tmp_path / "first"), os.environ.get("PYTHONPATH")]))
    process = cluster.start(PYTHONPATH=path)
    wait_for(lambda: "train" in cluster.stage_jobs(), "the Job of train")
    process.terminate()
    said, told = process.communicate(timeout=60)
    assert "nobody saw this" in said
    assert process.returncode == 143, told
