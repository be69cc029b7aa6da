"""Whether the host keeps up with the devices while answers are drawn: CPU seconds of its looks against the devices'
seconds at the bounds.

    python benchmarks/host.py [--shards 8 16 32] [--chips=4] [--model Llama-3.2-3B] [--reward rouge_l_recall]

Every `look_steps` decode steps the host takes answers off, prunes rows that have lost, gives questions to free pages
and draws their samples' random numbers (sampling/ledger.py, sampling/refill.py). Here it does so for lanes of
`sample.max_rows` rows on each shard, in one process that has all of them, and in one of several that have `--chips`
each. Lanes are those of benchmarks/refill.py, which cost the devices' time and are not counted. Lengths are drawn as
TOFU's; a sample's words are half those of the original answer. There are three times as many questions as lanes.

The devices' seconds are `pmc-jax plan`'s, of as many rows on v5e, a shard a chip: decode steps at full speed. Where the
host takes longer, the devices wait. Before the first chunk, questions are read into all pages: that is not a look.
"""

import argparse
import time
from typing import NamedTuple

import numpy as np
from pages import table
from refill import ASSUMED, ForcedLanes, forced_call
from rewards import drawn_answers

from pmc_jax import config as settings
from pmc_jax.data.authors import make_authors
from pmc_jax.data.prompts import Template, Text, make_text
from pmc_jax.data.tokenizer import train_tokenizer
from pmc_jax.distributed import meshes
from pmc_jax.distributed.device_kind import ACCELERATOR
from pmc_jax.methods.scoring import make_scorer
from pmc_jax.plan import abstract, estimate, topology
from pmc_jax.sampling.buckets import SPARE_PAGES
from pmc_jax.sampling.ledger import Ledger
from pmc_jax.sampling.params import SamplingParams
from pmc_jax.sampling.pruning import candidate_pruner
from pmc_jax.sampling.refill import draw_in_lanes, draw_numbers

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


class Watched:
    """Lanes whose time does not count. seconds: CPU seconds of the host between two chunks."""

    def __init__(self, lanes: ForcedLanes):
        self.lanes, self.seconds = lanes, []
        self.own, self.everywhere = lanes.own, lanes.everywhere
        self.start, self.not_counted = time.process_time(), 0.0

    def not_timed(self, work, *given):
        start = time.process_time()
        result = work(*given)
        self.not_counted += time.process_time() - start
        return result

    def read(self, questions_Q, seats):
        draw_numbers(self.lanes.call, questions_Q, self.lanes.shards)
        return self.not_timed(self.lanes.read, questions_Q, seats)

    def decode(self, lost_GX):
        self.seconds.append(time.process_time() - self.start - self.not_counted)
        written = self.lanes.decode(lost_GX)
        self.start, self.not_counted = time.process_time(), 0.0
        return written

    def shrink(self):
        return self.not_timed(self.lanes.shrink)


def looks(drawn: Drawn, samples: int, reward: str, max_rows: int, shards: int, processes: int = 1) -> list[float]:
    """CPU seconds of what comes before the first chunk, and of each look, of the first of so many processes."""
    scorer = make_scorer(reward, drawn.questions, drawn.references, drawn.text)
    prune = candidate_pruner(scorer, [1.0] * len(drawn.questions), samples, drawn.text.end_tokens)
    sampling = SamplingParams(num_samples=samples, max_new_tokens=drawn.tokens_BL.shape[1])
    call = forced_call(len(drawn.questions), sampling, max_rows, shards, drawn.text.end_tokens, prune)
    own = list(range(shards // processes))
    watched = Watched(ForcedLanes(call, drawn.tokens_BL, drawn.lengths_B, own))
    for _ in draw_in_lanes(Ledger(call), watched):
        pass
    # With one chunk ahead the second is dispatched before the first look.
    return [watched.seconds[0], *watched.seconds[2:]]


def chunk_seconds(model: str, shards: int, rows: int) -> float:
    """The devices' seconds between two looks at so many rows, at the bounds."""
    config = settings.changed(settings.default(), {"model.path": model})
    target = topology.parse_topology(SLICES[shards])
    mesh = meshes.make_abstract_mesh(target.chips, shards, 1)
    shape = abstract.make_shape(abstract.read_shape(model), remat=False)
    prompts = rows // config.sample.num_samples * (1 + SPARE_PAGES)
    return ACCELERATOR.look_steps * estimate.decode_time(shape, config, mesh, target, rows, prompts, ASSUMED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", nargs="*", type=int, default=list(SLICES), choices=SLICES)
    parser.add_argument("--chips", type=int, default=4, help="of a host, where there are several")
    parser.add_argument("--model", default="Llama-3.2-3B")
    parser.add_argument("--reward", default="rouge_l_recall")
    asked, s = parser.parse_args(), settings.default().sample
    n, longest, lines = s.num_samples, s.max_new_tokens, []
    looks(draw_batch(s.max_rows, n, longest, seed=1), n, asked.reward, s.max_rows, 1)  # words are stemmed
    for shards in asked.shards:
        rows = s.max_rows // n * n * shards
        drawn = draw_batch(3 * rows, n, longest)
        for processes in (1, shards // asked.chips):
            first, *taken = looks(drawn, n, asked.reward, s.max_rows, shards, processes)
            devices = chunk_seconds(asked.model, shards, rows)
            numbers = first, sum(taken) / len(taken), max(taken), devices
            lines.append(
                [f"{rows // shards} x {shards}", f"{processes}", str(len(taken)), *(f"{n:.3f}" for n in numbers)]
            )
    heads = [
        "rows",
        "processes",
        "looks",
        "before the first, s",
        "a look, s",
        "the longest, s",
        "devices between two looks, s",
    ]
    print(table(heads, lines))


if __name__ == "__main__":
    main()
