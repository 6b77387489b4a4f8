"""Child processes: they end with their parent, and their failure is told with its reason."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_common.errors import ConfigError, InputError, TerminatedError, TransientError
from pipeline_common.followers import Follower, following

EXPLAINED = """
import sys
from pipeline_common.errors import InputError
from pipeline_common.followers import follower_main
def work():
    raise InputError("row 7 is empty")
sys.exit(follower_main(work))
"""


def child(folder: Path, code: str, name: str = "child 1 of 1", **environment: str) -> Follower:
    return Follower(name, [sys.executable, "-c", code], folder / f"{name[6]}.log", environment)


def ends_within(seconds: float, pid: int) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def run_children(*children: Follower) -> None:
    with following(children) as followers:
        followers.wait()


def await_number(path: Path) -> int:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if path.is_file() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def test_children_work_with_their_environment_and_write_to_their_logs(tmp_path):
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    children = [child(tmp_path, code, f"child {n} of 2", CUDA_VISIBLE_DEVICES=str(n)) for n in (1, 2)]
    with following(children) as followers:
        followers.wait()
        assert followers.running == ()
    assert [one.log.read_text() for one in children] == ["1\n", "2\n"]


def test_a_reason_is_the_parents_error(tmp_path):
    with pytest.raises(InputError, match=r"^child 1 of 1: row 7 is empty \(its log: .*1\.log\)$") as caught:
        run_children(child(tmp_path, EXPLAINED))
    assert caught.value.exit_code == 3
    assert "row 7 is empty" in (tmp_path / "1.log").read_text()


def test_an_unexpected_error_is_named_and_its_traceback_is_in_the_log(tmp_path):
    code = EXPLAINED.replace('InputError("row 7 is empty")', 'ZeroDivisionError("by 0")')
    with pytest.raises(TransientError, match="unexpected ZeroDivisionError: by 0"):
        run_children(child(tmp_path, code))
    assert "Traceback" in (tmp_path / "1.log").read_text()


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("import sys; print('bad flag'); sys.exit(2)", ConfigError, "ended with exit code 2; .*: bad flag"),
        ("import sys; sys.exit(9)", TransientError, "ended with exit code 9; .*: empty"),
        ("import os; os.kill(os.getpid(), 9)", TransientError, r"was ended by SIGKILL \(often: .*memory"),
        ("import os; os.kill(os.getpid(), 15)", TerminatedError, "was ended by SIGTERM"),
    ],
)
def test_what_a_child_could_not_say_is_told_by_how_it_ended(tmp_path, code, kind, said):
    with pytest.raises(kind, match=said):
        run_children(child(tmp_path, code))


def test_a_failure_interrupts_the_parents_own_work_and_ends_the_other_children(tmp_path):
    sleeper = child(tmp_path, f"import os,time; open('{tmp_path}/pid','w').write(str(os.getpid())); time.sleep(60)")
    failing = child(
        tmp_path,
        f"import os,sys,time\nwhile not os.path.exists('{tmp_path}/pid'): time.sleep(0.01)\nsys.exit(3)",
        "child 2 of 2",
    )
    began = time.monotonic()

    def work() -> None:
        with following([sleeper, failing]):
            while True:
                time.sleep(0.01)

    with pytest.raises(InputError, match="child 2 of 2 ended with exit code 3"):
        work()
    assert time.monotonic() - began < 30
    assert ends_within(0.1, await_number(tmp_path / "pid"))


def test_a_failure_that_a_library_caught_is_raised_again_by_whoever_insists(tmp_path):
    failing = child(tmp_path, "import sys; sys.exit(3)")

    def work() -> None:
        with following([failing]) as followers:
            with contextlib.suppress(Exception):
                time.sleep(60)
            followers.check()
            followers.insist()

    with pytest.raises(InputError, match="child 1 of 1 ended with exit code 3"):
        work()


def test_leaving_stops_children_with_sigterm_and_stubborn_ones_with_sigkill(tmp_path):
    polite = "import signal,time,sys\nsignal.signal(15, lambda *_: (print('saved', flush=True), sys.exit(143)))\n"
    stubborn = "import signal,time\nsignal.signal(15, signal.SIG_IGN)\n"
    rest = "open({path!r},'w').write('1'); time.sleep(60)"
    first = child(tmp_path, polite + rest.format(path=str(tmp_path / "a")), "child 1 of 2")
    second = child(tmp_path, stubborn + rest.format(path=str(tmp_path / "b")), "child 2 of 2")
    with following([first, second], grace_s=0.5) as followers:
        await_number(tmp_path / "a"), await_number(tmp_path / "b")
        assert followers.running == ("child 1 of 2", "child 2 of 2")
    assert followers.running == ()
    assert first.log.read_text() == "saved\n"


def test_children_die_with_a_killed_parent(tmp_path):
    code = f"import os,time; open('{tmp_path}/pid','w').write(str(os.getpid())); time.sleep(60)"
    parent = (
        "import sys; from pathlib import Path; from pipeline_common.followers import Follower, following\n"
        f"with following([Follower('child', [sys.executable, '-c', {code!r}], Path({str(tmp_path / 'log')!r}))]) as f:"
        " f.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=Path(__file__).parents[2])
    pid = await_number(tmp_path / "pid")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ends_within(10, pid)
