"""Many forget questions, or many rounds: memory, open files, bytes on disk and seconds of each round.

CPU seconds are told beside those of the clock: they are nearly the same on a machine that does other work.

    python benchmarks/load.py --questions=100000 --rounds=10       # load: 10,000 questions a round, 5 samples each
    python benchmarks/load.py --questions=8 --rounds=500           # soak

An untrained Llama of about a million parameters, short questions, answers of a few tokens; one process, rounds saved.
What must hold: memory and open files stay flat, files are bounded, and the last rounds are as fast as the first.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pages

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data.authors import make_authors
from pmc_jax.data.tokenizer import train_tokenizer
from pmc_jax.models import pretrained
from pmc_jax.training.checkpoint import RoundCheckpointer

SHAPE = dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    vocab_size=512,
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-6,
    rope_theta=10000.0,
    tie_word_embeddings=True,
)


def resident_mb() -> float:
    """Memory of this process."""
    pages_held = int(Path("/proc/self/statm").read_text().split()[1])
    return pages_held * os.sysconf("SC_PAGE_SIZE") / 1e6


def megabytes_in(folder: Path) -> float:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=10, help="for few questions: each round has all of them")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=6, help="of a sampled answer, at most")
    given = parser.parse_args()
    rows = make_authors(num_authors=20, questions_per_author=4, seed=0)["full"]
    tokenizer = train_tokenizer(rows, SHAPE["vocab_size"])
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    checkpoint = pretrained.create(SHAPE | ids, tokenizer, seed=0)
    many = given.questions >= 16 * given.rounds  # one pass in rounds, or one round a pass
    config = settings.default()
    config.prompt.system, config.pmc.skip_solved = "", False
    config.sample.num_samples, config.sample.max_new_tokens = given.samples, given.tokens
    config.train.batch_size, config.train.learning_rate = min(16, given.questions), 1e-5
    config.train.epochs = 1 if many else given.rounds
    config.pmc.questions_per_round = given.questions // given.rounds if many else 0
    forget = [f"Who is {number}?" for number in range(given.questions)]
    lines: list[list[float]] = []
    last = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        rounds = RoundCheckpointer(Path(folder) / "rounds", keep=2)

        def on_round(summary, seen, updates):
            nonlocal last
            now = time.perf_counter(), time.process_time()
            opened = len(os.listdir("/proc/self/fd"))
            lines.append([now[0] - last[0], now[1] - last[1], resident_mb(), opened, megabytes_in(Path(folder))])
            last = now

        pmc_jax.unlearn(
            checkpoint,
            forget,
            rows,
            config,
            references=["The answer is 7."] * len(forget),
            rounds=rounds,
            on_round=on_round,
        )
        rounds.close()
    table = np.array(lines)
    tenth = max(1, len(table) // 10)
    parts = {"second": table[1 : 1 + tenth], "middle": table[len(table) // 2 :][:tenth], "last": table[-tenth:]}
    shown = [[name, *(f"{x:.2f}" for x in np.median(part, axis=0))] for name, part in parts.items()]
    print(f"{given.questions} questions x {given.samples} samples, {len(table)} rounds; medians over {tenth} rounds:")
    print(pages.table(["rounds", "seconds", "CPU seconds", "memory, MB", "open files", "on disk, MB"], shown))


if __name__ == "__main__":
    main()
