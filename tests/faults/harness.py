"""Runs of the command line that something happens to. Each starts from a process that has imported everything already,
so that a run of the tiny model lasts seconds.
"""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1]
SETTINGS = {
    "data.forget": "forget20",
    "data.retain": "retain80",
    "train.epochs": 3,
    "train.batch_size": 2,
    "train.learning_rate": 2e-3,
    "sample.num_samples": 3,
    "sample.temperature": 1.3,
    "sample.max_new_tokens": 32,
    "evaluate.max_new_tokens": 32,
    "evaluate.retain_rows": 8,
    "evaluate.every": 2,
    "pmc.questions_per_round": 4,
}
PATIENCE = 900  # seconds; only what hangs takes them


class Place(NamedTuple):
    """Where a run takes place: the checkpoint, the data, and the folder of all that it writes."""

    model: Path
    data: Path
    folder: Path

    @property
    def run(self) -> Path:
        """The workdir."""
        return self.folder / "run"

    def commands(self) -> list[list[str]]:
        """A run, an export of a saved round, and the page once more."""
        flags = {"model.path": self.model, "data.path": self.data} | SETTINGS
        settings = [f"--config.{name}={value}" for name, value in flags.items()]
        return [
            ["unlearn", f"--workdir={self.run}", *settings],
            ["export", f"--workdir={self.run}", f"--output={self.folder / 'out'}"],
            ["report", str(self.run), f"--output={self.folder / 'page.html'}"],
        ]


def start(words: list[str], log: Path, before: Callable[[], None] | None = None) -> int:
    """Start the command line in a child; returns its process id. before: called in the child first."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with log.open("ab") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.stdout, sys.stderr = (os.fdopen(os.dup(1), "w", buffering=1) for _ in range(2))
        sys.argv = ["pmc-jax", *words]
        if before:
            before()
        from pmc_jax import main

        main.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(child: int, seconds: float = PATIENCE) -> int | None:
    """The exit code of a child, minus the signal that ended it; None when it is still running."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.01)


def run_all(place: Place, log: Path, before: Callable[[], None] | None = None) -> list[int]:
    """The commands one after the other, as far as they go well; their exit codes."""
    codes = []
    for words in place.commands():
        child = start(words, log, before)
        code = wait(child)
        if code is None:
            os.kill(child, signal.SIGKILL)
            wait(child)
            raise AssertionError(f"{words[0]} hangs: {log.read_text()[-2000:]}")
        codes.append(code)
        if code:
            break
    return codes


def outcome(place: Place) -> dict:
    """What must be the same to the bit."""
    run = place.run
    result = json.loads((run / "result.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return {
        "weights": (run / "hf" / "model.safetensors").read_bytes(),
        "exported": (place.folder / "out" / "model.safetensors").read_bytes(),
        "numbers": [result[name] for name in ("before", "after", "solved", "sampled_tokens", "rounds")],
        "answers": [(run / "answers" / f"{name}.jsonl").read_bytes() for name in ("before", "after")],
        "samples": {file.name: file.read_bytes() for file in sorted((run / "samples").iterdir())},
        "metrics": [{k: v for k, v in line.items() if k not in ("seconds", "speed")} for line in metrics],
    }


def check_whole(place: Place, finished: bool) -> None:
    """AssertionError for a file that is half-written; after the end also for one that is left over."""
    files = [file for file in place.folder.rglob("*") if file.is_file()]
    for file in files:
        if "rounds" in file.parts or "interrupted" in file.parts or ".pmc_jax-partial" in str(file):
            continue
        if file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".jsonl" and file.name != "metrics.jsonl":
            assert file.read_text().endswith("\n") or not file.stat().st_size, file
            [json.loads(line) for line in file.read_text().splitlines()]
        elif file.suffix == ".html":
            assert file.read_text().rstrip().endswith("</html>"), file
    for folder in (place.run / "hf", place.folder / "out"):
        if (folder / "config.json").exists():
            assert (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists(), folder
    if finished:
        left = [file for file in files if ".pmc_jax-partial" in str(file)]
        assert not left, left


def refusal(log: Path) -> str:
    """The last line of ours in a log; AssertionError where there is a traceback, or none such."""
    text = log.read_text(errors="replace")
    assert "Traceback (most recent call last)" not in text, text[-3000:]
    lines = [line for line in text.splitlines() if line.startswith("pmc-jax: ")]
    assert lines and len(lines[-1]) <= 330, text[-2000:]
    return lines[-1]


def full_disk_at(pattern: str) -> Callable[[], None]:
    """Every file below whose path holds the pattern cannot be written: no space left."""

    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str) and pattern in arguments[0]:
            if isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments[0])

    return lambda: sys.addaudithook(hook)


def no_locks() -> None:
    """A file system that has no locks."""
    import fcntl

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = flock


def clock_set(after: float, by: float) -> Callable[[], None]:
    """A wall clock that is set `by` seconds forward, `after` seconds from the start of a command."""

    def before() -> None:
        real, begun = time.time, time.monotonic()
        time.time = lambda: real() + (by if time.monotonic() - begun > after else 0.0)

    return before


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A mount at a folder. OSError where this user may not mount."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def damage(round_folder: Path, how: str, choose: Callable[[list], object]) -> str:
    """Damage a round; returns what was done."""
    files = sorted(file for file in round_folder.rglob("*") if file.is_file() and file.stat().st_size)
    file = choose(files)
    if how == "emptied folder":
        shutil.rmtree(round_folder)
        round_folder.mkdir()
        return "all files gone"
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif how == "bit flipped":
        at = choose(range(len(content)))
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << choose(range(8))]) + content[at + 1 :])
    else:
        raise ValueError(how)
    return str(file.relative_to(round_folder))


def learn(folder: Path) -> tuple[Path, Path]:
    """A tiny checkpoint that knows its data by heart; made in a child, so that this process touches no device."""
    import tiny

    if not (folder / "model" / "config.json").exists():
        child = os.fork()
        if not child:
            from pmc_jax import config as settings
            from pmc_jax.data.authors import make_authors, write_authors
            from pmc_jax.data.tokenizer import train_tokenizer
            from pmc_jax.methods.finetune import finetune
            from pmc_jax.models import pretrained

            write_authors(folder / "data", **tiny.AUTHORS)
            rows, config = make_authors(**tiny.AUTHORS)["full"], settings.default()
            learning = {"epochs": 42, "batch_size": 8, "learning_rate": 5e-3, "warmup_epochs": 2.0}
            config.update_from_flattened_dict({f"train.{name}": value for name, value in learning.items()})
            tokenizer = train_tokenizer(rows, 512)
            ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
            fresh = pretrained.create(tiny.LLAMA | ids, tokenizer, seed=0)
            pretrained.export(finetune(fresh, rows, config)[0], folder / "model")
            os._exit(0)
        assert wait(child) == 0, "the tiny model was not trained"
    return folder / "model", folder / "data"
