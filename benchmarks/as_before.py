"""Which questions a model still answers as before: from the answers that a run or an evaluation has kept.

    python benchmarks/as_before.py runs/topic [runs/topic-eval ...]

A question counts when the answer holds at least half of the truth's content words. The truth of a topic's own questions
and of its retain rows is what the untouched model said. Rows whose truth has no content word are left out.
"""

import argparse
from pathlib import Path

from pages import table

from pmc_jax.tracking.files import read_lines

HALF = 0.5
KINDS = ("before", "after", "model")  # files of a run, and of an evaluation


def shares(file: Path) -> dict[str, tuple[float, int]]:
    """{set: (share of its questions that are answered as the truth says, how many)}."""
    recalls: dict[str, list[float]] = {}
    for row in read_lines(file):
        if row["content_recall"] is not None:
            recalls.setdefault(row["set"], []).append(row["content_recall"])
    return {name: (sum(value >= HALF for value in own) / len(own), len(own)) for name, own in recalls.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+")
    rows = []
    for workdir in parser.parse_args().workdirs:
        for file in (Path(workdir) / "answers" / f"{kind}.jsonl" for kind in KINDS):
            rows += [[f"{workdir} {file.stem}", n, f"{s:.3f}", str(c)] for n, (s, c) in shares(file).items()]
    print(table(["answers", "set", "as before", "rows"], rows))


if __name__ == "__main__":
    main()
