"""PMC on one accelerator, measured from single steps to whole runs, on random checkpoints of Llama-3.2-3B's and
Phi-1.5's shape.

    python benchmarks/gpu.py [--out=gpu.json] [--minutes=25] [--models=llama,phi] [--parts=steps,rounds,yardstick,run]
    [--small] python benchmarks/gpu.py --table=gpu.json

The settings are the published ones, answer lengths those of TOFU (lognormal, mean 45, deviation 20, at most 130
tokens), and no question counts as
solved: rounds are as long as they can be. Each part is a process of its own, and the JSON is written anew after each
figure: whatever fails or is cut off leaves the rest. A second call adds to the same file. --small does all of it at
tiny shapes, on a CPU in two minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_table import add_derived, machine, table

ROOT = Path(__file__).parents[1]
MODELS, PARTS = ("llama", "phi"), ("steps", "rounds", "yardstick", "run")
EPOCHS = 3  # rounds from which the whole run is derived
QUICK_COMPILER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
LEAST = 20  # seconds left under which no part is begun
MOST_MINUTES = {"device": 2, "steps": 6, "rounds": 5, "yardstick": 3, "run": 12}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def add(path: Path, model: str, part: str, figures: dict[str, Any]) -> None:
    """Put what a part found, and what follows from it, into the file; whole or not at all, since a run may be cut off
    at any time.
    """
    result = read(path)
    result.setdefault(model, {})[part] = result.get(model, {}).get(part, {}) | figures
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(add_derived(result), indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def run_part(part: str, model: str, small: bool, out: Path) -> None:
    """One part, in this process. Each figure goes into the file as it comes."""
    import forced
    import gpu_parts
    import gpu_torch

    def record(name: str, value: Any) -> None:
        add(out, model, part, {name: value})

    job = forced.make_job(MODELS[0] if part == "device" else model, small)
    c = job.config
    record(
        "job",
        {
            "epochs": c.train.epochs,
            "questions": job.assumed.questions,
            "samples": c.sample.num_samples,
            "max_rows": c.sample.max_rows,
        },
    )
    do = {
        "device": lambda: gpu_parts.device(job, record, small),
        "steps": lambda: gpu_parts.steps(job, record),
        "rounds": lambda: gpu_parts.unlearn(job, record, EPOCHS),
        "run": lambda: gpu_parts.unlearn(job, record, c.train.epochs),
        "yardstick": lambda: gpu_torch.steps(job, record),
    }
    do[part]()


def start_part(part: str, model: str, small: bool, out: Path, limit: float) -> dict[str, Any]:
    """One part in a process of its own, at most `limit` seconds. Returns how long it took, and `error` where it did not
    end well.
    """
    command = [sys.executable, __file__, "--do", part, model, f"--out={out.resolve()}", *["--small"] * small]
    environment = os.environ | ({"JAX_PLATFORMS": "cpu"} if part == "yardstick" else {})  # the device is torch's alone
    if small:  # tiny models compile far longer than they run
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILER}"
    start, error = time.perf_counter(), None
    with tempfile.TemporaryFile("w+", errors="replace") as words:
        try:
            code = subprocess.run(
                command, stdout=words, stderr=words, timeout=limit, env=environment, cwd=ROOT
            ).returncode
            error = f"exit code {code}" if code else None
        except subprocess.TimeoutExpired:
            error = f"stopped after {limit:.0f} s"
        words.seek(0)
        why = {"error": error, "log": words.read().strip().splitlines()[-8:]} if error else {}
    return {"part_seconds": time.perf_counter() - start} | why


def expected(result: dict[str, Any], model: str, part: str) -> float:
    """Seconds that a part must have left to be worth beginning: of a whole run those that its rounds foretell."""
    if part != "run":
        return LEAST
    rounds = result.get(model, {}).get("rounds", {})
    return 1.1 * rounds.get("whole_run_seconds", {}).get("never", float("inf")) + rounds.get("make_seconds", 0) + LEAST


def measure(out: Path, minutes: float, models: list[str], parts: list[str], small: bool) -> None:
    """All parts, one after the other: every model's short ones before any whole run."""
    began = time.perf_counter()
    todo = [("device", "machine")] * ("kind" not in machine(read(out)))
    todo += [
        (part, model)
        for group in (PARTS[:2], PARTS[2:3], PARTS[3:])
        for model in models
        for part in group
        if part in parts
    ]
    for part, model in todo:
        left = 60 * minutes - (time.perf_counter() - began)
        if left < expected(read(out), model, part):
            figures = {"error": f"not begun: {left:.0f} s were left"}
        else:
            figures = start_part(part, model, small, out, min(left, 60 * MOST_MINUTES[part]))
        add(out, model, part, figures)
        print(
            f"{model}, {part}: {figures.get('error', 'done')} ({figures.get('part_seconds', 0):.0f} s)",
            file=sys.stderr,
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=25, help="for all of it")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--small", action="store_true", help="tiny shapes, for a CPU")
    parser.add_argument(
        "--table", type=Path, metavar="JSON", help="print this result as the tables of docs/performance.md"
    )
    parser.add_argument("--do", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    models, parts = given.models.split(","), given.parts.split(",")
    for name, chosen, known in (("models", models, MODELS), ("parts", parts, PARTS)):
        if not set(chosen) <= set(known):
            parser.error(f"--{name}={','.join(chosen)}: choose among {', '.join(known)}")
    if given.table:
        print(table(read(given.table)))
    elif given.do:
        run_part(*given.do, given.small, given.out)
    else:
        measure(given.out, given.minutes, models, parts, given.small)
        print(table(read(given.out)))


if __name__ == "__main__":
    main()
