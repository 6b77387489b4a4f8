"""Run one command as a small process would, and print what it cost as JSON.

python -I -S tests/benchmarks/launcher.py COMMAND...

On Linux `ru_maxrss` lives through fork and exec: a program's peak begins with what the process had that started it.
Started by this one, of some 10 MiB, a command shows its own. The exit code is the command's.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> int:
    """Start it, wait for it, tell; its output is thrown away, its errors are not."""
    command = sys.argv[1:]
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    began = time.perf_counter()
    started = os.posix_spawnp(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(started, 0)
    told = {
        "wall_s": time.perf_counter() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }
    print(json.dumps(told))
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    raise SystemExit(main())
