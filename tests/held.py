"""A run that stands still at a chosen write, to be killed there: no test that kills depends on speed."""

import sys
import time

PATIENCE = 600  # seconds; only what hangs takes them
# Python tells an audit hook of every file that is about to be opened, made or renamed.
STAND_STILL = """
import os, runpy, sys, threading, time

marker, run, after, count = sys.argv[1:5]
writes, begun, lock = int(count), False, threading.Lock()


def stand_still(event, arguments):
    global writes, begun
    if event not in ("open", "os.rename", "os.mkdir") or not arguments[0] or isinstance(arguments[0], int):
        return
    path = os.fsdecode(arguments[1 if event == "os.rename" else 0])
    if not path.startswith(run) or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    with lock:
        begun, first = begun or path.endswith(after), not begun
        writes -= begun and not first
        reached = begun and writes == 0
        writes -= reached
    if reached:
        open(marker, "w").close()
        while not os.path.exists(marker + ".go_on"):
            time.sleep(0.05)


sys.addaudithook(stand_still)
sys.argv = ["pmc-jax", *sys.argv[5:]]
runpy.run_module("pmc_jax.main", run_name="__main__")
"""


def held(words, marker, run, after, count):
    """The command of a run that stands still before a write below its folder.

    words: what `pmc-jax` is given. marker: a file that appears when it stands still; a file of that name with
    ".go_on" lets it go on. after: the end of the name of a file in `run`. count: writes after that file's.
    """
    return [sys.executable, "-c", STAND_STILL, *map(str, (marker, run, after, count, *words))]


def until(condition, processes=()):
    """Wait for a condition, while all the processes run."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came"
        assert all(process.poll() is None for process in processes), "a process ended before it came"
        time.sleep(0.02)
