"""Faults, each of which must leave the same final numbers as an undisturbed run, to the bit, or a clear refusal.

    python tests/faults/reliability.py --times=50          # the table of docs/reliability.md
    python tests/faults/reliability.py --only=kill,damage --times=3

Runs of a tiny model on two kinds of command: unlearn, then export and report. Each line of the table is a kind of
fault, how often it was tried, and how often what came out was identical or a refusal. After a refusal the same command
is given again without the fault: it must come to the same numbers.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

from harness import (  # noqa: E402
    Place,
    check_whole,
    clock_set,
    damage,
    full_disk_at,
    learn,
    mounted,
    no_locks,
    outcome,
    refusal,
    run_all,
    start,
    wait,
)

WRITTEN = {  # what a run writes, by a part of its path
    "settings": "config.json",
    "evaluation before": "before.json",
    "answers before": "answers/before",
    "answers after": "answers/after",
    "samples": "samples/",
    "metrics": "metrics.jsonl",
    "events": "events/",
    "result": "result.json",
    "checkpoint": "hf/",
    "export": "out/",
    "pages": "page.html",
}
A_DAY = 86_400.0  # seconds
HOW = ("truncated", "empty", "missing", "bit flipped", "emptied folder")


class Bench:
    """All trials of one call: the undisturbed run that others are compared with, and the counts."""

    def __init__(self, model: Path, data: Path, scratch: Path, seed: int):
        self.model, self.data, self.scratch, self.drawn = model, data, scratch, random.Random(seed)
        self.counts: dict[str, dict[str, int]] = {}
        self.places = 0
        first = self.place()
        assert run_all(first, self.log(first)) == [0, 0, 0], self.log(first).read_text()[-3000:]
        begun = time.monotonic()
        again = self.place()  # compiled programs are there now: this is how long a run takes
        assert run_all(again, self.log(again)) == [0, 0, 0]
        self.seconds, self.first = time.monotonic() - begun, first
        self.undisturbed = outcome(first)
        assert outcome(again) == self.undisturbed, "two undisturbed runs differ"

    def place(self) -> Place:
        """A new empty place."""
        self.places += 1
        folder = self.scratch / f"place_{self.places}"
        folder.mkdir()
        return Place(self.model, self.data, folder)

    def log(self, place: Place) -> Path:
        """What the runs in a place say."""
        return place.folder.with_suffix(".log")

    def count(self, fault: str, kind: str) -> None:
        """One more trial of a fault that ended so."""
        of = self.counts.setdefault(fault, {"tried": 0, "identical": 0, "refused": 0})
        of["tried"] += 1
        of[kind] += 1
        print(f"{fault}: {of}", file=sys.stderr, flush=True)

    def finish(self, place: Place) -> None:
        """Start again until the end; what comes out must be as undisturbed."""
        codes = run_all(place, self.log(place))
        assert codes == [0, 0, 0], (codes, self.log(place).read_text()[-3000:])
        check_whole(place, finished=True)
        assert outcome(place) == self.undisturbed, place
        shutil.rmtree(place.folder)


def stop_at_random(bench: Bench, place: Place, number: int) -> int:
    """Send a signal at a random moment of a whole run. Returns the exit code of the command that it met."""
    end = time.monotonic() + bench.drawn.uniform(0, bench.seconds)
    for words in place.commands():
        child = start(words, bench.log(place))
        code = wait(child, end - time.monotonic())
        if code is None:
            os.killpg(child, number) if number == signal.SIGKILL else os.kill(child, number)
            return wait(child)
        assert code == 0, bench.log(place).read_text()[-3000:]
    return 0


def kill(bench: Bench, times: int) -> None:
    """SIGKILL at random moments; every third run is killed twice before it may finish."""
    for trial in range(times):
        place = bench.place()
        for _ in range(1 + (trial % 3 == 2)):
            stop_at_random(bench, place, signal.SIGKILL)
            check_whole(place, finished=False)
        bench.finish(place)
        bench.count("SIGKILL at a random moment", "identical")


def term(bench: Bench, times: int) -> None:
    """SIGTERM at random moments."""
    for _ in range(times):
        place = bench.place()
        code = stop_at_random(bench, place, signal.SIGTERM)
        assert code in (0, 143, -signal.SIGTERM), (code, bench.log(place).read_text()[-3000:])
        check_whole(place, finished=False)
        bench.finish(place)
        bench.count("SIGTERM at a random moment (exit code 143)", "identical")


def full(bench: Bench, times: int) -> None:
    """No space left, for each kind of file that is written by Python."""
    for name, pattern in list(WRITTEN.items())[:times]:
        place = bench.place()
        codes = run_all(place, bench.log(place), full_disk_at(f"/{pattern}" if "/" in pattern else pattern))
        # Files are written beside their place: a pattern of a file's own name is met by the folder's partial ones.
        if codes[-1] == 0:
            codes = run_all(place, bench.log(place), full_disk_at(".pmc_jax-partial"))
        if codes[-1]:
            assert codes[-1] == 2, (name, codes, bench.log(place).read_text()[-3000:])
            assert "No space left" in refusal(bench.log(place)), name
        check_whole(place, finished=False)
        bench.finish(place)
        bench.count("no space left for a kind of file", "identical")


def small_disk(bench: Bench, times: int) -> None:
    """A file system that is full at some point of the run, and larger when it is started again."""
    needed = sum(file.stat().st_size for file in bench.first.folder.rglob("*") if file.is_file())
    for trial in range(times):
        place = bench.place()
        size = int(needed * (0.05 + 0.9 * (trial + bench.drawn.random()) / times)) // 4096 * 4096
        with mounted(place.folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
            codes = run_all(place, bench.log(place))
            assert codes[-1] in (0, 2), (size, codes, bench.log(place).read_text()[-3000:])
            if codes[-1]:
                refusal(bench.log(place))
            check_whole(place, finished=False)
            os.system(f"mount -o remount,size={4 * needed} {place.folder}")
            codes = run_all(place, bench.log(place))
            assert codes == [0, 0, 0], (size, codes, bench.log(place).read_text()[-3000:])
            check_whole(place, finished=True)
            assert outcome(place) == bench.undisturbed
        bench.count("a file system that is full, then larger", "identical")


def damaged(bench: Bench, times: int) -> None:
    """A drawn file of the newest round is damaged; the run goes on from the round before."""
    for trial in range(times):
        place = bench.place()
        shutil.copytree(bench.first.folder, place.folder, dirs_exist_ok=True)
        for name in ("result.json", "report.html"):
            (place.run / name).unlink()
        shutil.rmtree(place.folder / "out")
        newest = max((place.run / "rounds").iterdir(), key=lambda folder: int(folder.name))
        what = damage(newest, HOW[trial % len(HOW)], bench.drawn.choice)
        print(f"{HOW[trial % len(HOW)]}: {what}", file=sys.stderr)
        bench.finish(place)
        bench.count("the newest round damaged", "identical")


def read_only(bench: Bench, times: int) -> None:
    """A workdir that cannot be written, of an unfinished run and of a finished one."""
    for _ in range(min(times, 1)):
        place = bench.place()
        shutil.copytree(bench.first.folder, place.folder, dirs_exist_ok=True)
        (place.run / "result.json").unlink()
        before = {file: file.stat().st_mtime_ns for file in place.folder.rglob("*")}
        with mounted(place.run, "--bind", str(place.run)):
            os.system(f"mount -o remount,ro,bind {place.run}")
            codes = run_all(place, bench.log(place))
            assert codes == [2] and "Read-only file system" in refusal(bench.log(place)), codes
        assert before == {file: file.stat().st_mtime_ns for file in place.folder.rglob("*")}
        bench.count("a workdir that cannot be written", "refused")
        bench.finish(place)


def two_at_once(bench: Bench, times: int) -> None:
    """A second start while the first is running."""
    for _ in range(min(times, 2)):
        place = bench.place()
        child = start(place.commands()[0], bench.log(place))
        while not (place.run / "before.json").exists():
            time.sleep(0.05)
        second = bench.log(place).with_suffix(".second")
        assert run_all(place, second) == [2] and "another process is running in it" in refusal(second)
        assert wait(child) == 0, bench.log(place).read_text()[-3000:]
        bench.count("two runs in one workdir", "refused")
        bench.finish(place)


def without_locks(bench: Bench, times: int) -> None:
    """A file system that has no locks."""
    for _ in range(min(times, 1)):
        place = bench.place()
        assert run_all(place, bench.log(place), no_locks) == [0, 0, 0], bench.log(place).read_text()[-3000:]
        assert "has no locks" in bench.log(place).read_text()
        assert outcome(place) == bench.undisturbed
        bench.count("a file system without locks", "identical")


def clock_jumps(bench: Bench, times: int) -> None:
    """A wall clock that is set once, at a random moment. Within a save, time-outs of Orbax end the run; it goes on."""
    for trial in range(times):
        place = bench.place()
        set_once = clock_set(bench.drawn.uniform(0, bench.seconds), (A_DAY, -A_DAY)[trial % 2])
        codes = run_all(place, bench.log(place), set_once)
        if codes[-1]:
            assert codes[-1] == 2 and "timed out" in refusal(bench.log(place)), codes
        bench.finish(place)
        bench.count("a clock that is set by a day", "refused" if codes[-1] else "identical")


FAULTS = {
    "kill": kill,
    "term": term,
    "full": full,
    "disk": small_disk,
    "damage": damaged,
    "read_only": read_only,
    "two": two_at_once,
    "locks": without_locks,
    "clock": clock_jumps,
}


def table(counts: dict[str, dict[str, int]]) -> str:
    """The counts as a table of Markdown."""
    rows = ["| fault | tried | identical to the bit | refused clearly |", "|---|---|---|---|"]
    rows += [f"| {fault} | {of['tried']} | {of['identical']} | {of['refused']} |" for fault, of in counts.items()]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="kills; of other faults a fifth, 10 at least")
    parser.add_argument("--only", default=",".join(FAULTS), help="faults, joined by commas")
    parser.add_argument("--exactly", action="store_true", help="--times of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a checkpoint that knows --data by heart; else one is trained")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    given = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="pmc_jax_faults_"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(scratch / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    import pmc_jax.main
    import pmc_jax.runs.evaluate
    import pmc_jax.runs.export
    import pmc_jax.runs.unlearn  # noqa: F401  what the children would import

    try:
        model, data = (given.model, given.data) if given.model else learn(scratch)
        bench = Bench(model, data, scratch, given.seed)
        print(f"an undisturbed run takes {bench.seconds:.1f} s", file=sys.stderr, flush=True)
        for name in given.only.split(","):
            times = given.times if given.exactly or name == "kill" else max(10, given.times // 5)
            try:
                FAULTS[name](bench, times)
            except PermissionError as error:
                print(f"{name}: not tried: {error}", file=sys.stderr)
        print(json.dumps(bench.counts) if given.json else table(bench.counts))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
