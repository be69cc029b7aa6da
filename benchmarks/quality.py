"""Quality and time by size of a round: unlearn quality, utility and seconds, mean and spread over seeds. The defaults follow this table.

python benchmarks/quality.py [--presets=llama,phi] [--sizes=8,10,0] [--seeds=0,1,2] [--shared=../shared] [--out=quality.json]
"""

import argparse
import json
from pathlib import Path

import numpy as np
from bench import CHECKPOINTS, HERE, run_side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="llama,phi")
    parser.add_argument("--sizes", default="8,0", help="questions per round; 0 = all")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared", help="folder with checkpoints/ and tofu-mini/")
    parser.add_argument("--out", help="JSON file for all results")
    given = parser.parse_args()
    kept = []
    print(
        "| checkpoint | questions per round | UQ | utility | unlearning s | of which compile | sample | update |\n|---|---|---|---|---|---|---|---|"
    )
    for preset in given.presets.split(","):
        checkpoint = given.shared / "checkpoints" / CHECKPOINTS[preset]
        for size in given.sizes.split(","):
            found = [
                run_side("ours.py", checkpoint, given.shared / "tofu-mini", preset, f"--questions_per_round={size}", f"--seed={seed}")
                for seed in given.seeds.split(",")
            ]
            kept += [{"preset": preset, "size": int(size), **result} for result in found]
            columns = [[r["after"][k] for r in found] for k in ("unlearn_quality", "utility")]
            columns += [[r["seconds"][k] for r in found] for k in ("unlearn", "compile", "sample", "update")]
            cells = [f"{np.mean(c):.1f} ± {np.std(c, ddof=1) if len(c) > 1 else 0:.1f}" for c in columns]
            print("|", " | ".join([preset, size if size != "0" else "all", *cells]), "|", flush=True)
    if given.out:
        Path(given.out).write_text(json.dumps(kept) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
