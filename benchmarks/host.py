"""Whether the host keeps up with the devices while answers are drawn: CPU seconds of its looks against the devices'
seconds at the bounds.

    python benchmarks/host.py [--shards 8 16 32] [--model Llama-3.2-3B] [--reward rouge_l_recall]

Between two chunks of decode steps the host retires rows that are done and prunes those that have lost
(`batches.retire`). Here it does so for one batch of `sample.max_rows` rows on each shard, in one process, from the
first chunk to the last. Lengths are drawn as TOFU's; a sample's words are half those of the original answer. The
devices' seconds are `pmc-jax plan`'s, of the same rows on v5e, a shard a chip: its decode steps at full speed. Where
the host takes longer, the devices wait. Compaction is work of the devices, and not looked at.
"""

import argparse
import time
from typing import NamedTuple

import jax
import numpy as np
from pages import table
from rewards import drawn_answers

from pmc_jax import config as settings
from pmc_jax.data.authors import make_authors
from pmc_jax.data.prompts import Template, Text, make_text
from pmc_jax.data.tokenizer import train_tokenizer
from pmc_jax.distributed import meshes
from pmc_jax.methods.scoring import make_scorer
from pmc_jax.plan import abstract, estimate, topology
from pmc_jax.plan.abstract import Assumed
from pmc_jax.sampling.batches import DecodeBatch, Origins, Snapshot, retire
from pmc_jax.sampling.decode import CHUNK, DecodeState
from pmc_jax.sampling.pruning import candidate_pruner

ASSUMED = Assumed(400, 36, 64, 45)
SLICES = {8: "v5e:2x4", 16: "v5e:4x4", 32: "v5e:4x8"}


class Drawn(NamedTuple):
    """What a batch's rows will have drawn. tokens_BL: token ids, 0 behind the end. lengths_B: with the end token."""

    text: Text
    questions: list[str]
    references: list[str]
    tokens_BL: np.ndarray
    lengths_B: np.ndarray


def draw_batch(rows: int, samples: int, longest: int, seed: int = 0) -> Drawn:
    """Original answers of drawn lengths, and for each of them samples of lengths of their own."""
    facts = make_authors(num_authors=40, questions_per_author=20, seed=0)["full"]
    text = make_text(train_tokenizer(facts, 4096), Template(), ())
    rng = np.random.default_rng(seed)
    words = " ".join(row["answer"] for row in facts).split()

    def phrase(length: int) -> str:
        start = int(rng.integers(len(words) - length))
        return text.read(text.answer(" ".join(words[start : start + length]))[:length])

    references = [phrase(int(n)) for n in ASSUMED.lengths(longest, rows // samples)]
    answers = [answer for of_one in drawn_answers(references, samples) for answer in of_one]
    lengths = rng.permutation(ASSUMED.lengths(longest, len(answers)))
    tokens_BL, lengths_B = np.zeros((rows, longest), np.int32), np.ones(rows, int)
    for row, (answer, length) in enumerate(zip(answers, lengths)):
        tokens = [*text.answer(answer)[: int(length) - 1], text.end_tokens[0]]
        tokens_BL[row, : len(tokens)], lengths_B[row] = tokens, len(tokens)
    return Drawn(text, [f"question {q}" for q in range(len(references))], references, tokens_BL, lengths_B)


def looks(drawn: Drawn, samples: int, reward: str) -> list[float]:
    """CPU seconds of each look, until every row is retired."""
    scorer = make_scorer(reward, drawn.questions, drawn.references, drawn.text, min_words=0)
    prune = candidate_pruner(scorer, [1.0] * len(drawn.questions), samples, drawn.text.end_tokens)
    rows, longest = drawn.tokens_BL.shape
    used = len(drawn.questions) * samples
    rows_B = np.where(np.arange(rows) < used, np.arange(rows), -1)
    origins = Origins([[] for _ in range(rows)], np.zeros((rows, 1, 2), np.float32))
    mesh = meshes.make_mesh(1, 1, jax.devices()[:1])
    whole, seconds = meshes.row_sharding(mesh), []
    for step in range(CHUNK, longest + 1, CHUNK):
        done_B = meshes.put((drawn.lengths_B <= step) | (rows_B < 0), whole)
        told = Snapshot(meshes.put(np.int32(step), meshes.replicated_sharding(mesh)), done_B, None)
        told = told._replace(tokens_BC=meshes.put(drawn.tokens_BL[:, :step], whole))
        state = DecodeState(told.tokens_BC, told.step, done_B, None, [], [])
        start = time.process_time()
        batch = DecodeBatch(state, step, rows_B, np.arange(rows), [])
        batch, _ = retire(batch, told, origins, longest, drawn.text.end_tokens, prune)
        seconds.append(time.process_time() - start)
        rows_B = batch.rows_B
        if not (rows_B >= 0).any():
            break
    return seconds


def chunk_seconds(model: str, shards: int, rows: int) -> float:
    """The devices' seconds between two looks at a whole batch, at the bounds."""
    config = settings.changed(settings.default(), {"model.path": model})
    target = topology.parse_topology(SLICES[shards])
    mesh = meshes.make_abstract_mesh(target.chips, shards, 1)
    shape = abstract.make_shape(abstract.read_shape(model), remat=False)
    prompts = rows // config.sample.num_samples
    return CHUNK * estimate.decode_time(shape, config, mesh, target, rows, prompts, ASSUMED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", nargs="*", type=int, default=list(SLICES), choices=SLICES)
    parser.add_argument("--model", default="Llama-3.2-3B")
    parser.add_argument("--reward", default="rouge_l_recall")
    asked, config = parser.parse_args(), settings.default()
    s, lines = config.sample, []
    looks(draw_batch(s.max_rows, s.num_samples, s.max_new_tokens, seed=1), s.num_samples, asked.reward)  # words stemmed
    for shards in asked.shards:
        rows = s.max_rows * shards
        taken = looks(draw_batch(rows, s.num_samples, s.max_new_tokens), s.num_samples, asked.reward)
        numbers = sum(taken), max(taken), chunk_seconds(asked.model, shards, rows)
        lines.append([f"{s.max_rows} x {shards}", str(len(taken)), *(f"{n:.2f}" for n in numbers)])
    heads = ["rows", "looks", "all looks, s", "the longest, s", "devices between two looks, s"]
    print(table(heads, lines))


if __name__ == "__main__":
    main()
