"""A GGUF file of your own against transformers' reading of it in torch: PMC_GGUF=FILE make parity.

The file may be of any architecture that is read here, without RoPE scaling, which transformers leaves out.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.sampling.prompts import left_pad

pytest.importorskip("torch")
pytest.importorskip("gguf")

import golden
import golden_torch
from reference import torch, transformers

FILE = Path(os.environ.get("PMC_GGUF", ""))
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not FILE.is_file(), reason="PMC_GGUF names no file"),
]
TEXTS = [
    "The capital of France is",
    "Question: Who wrote the play Hamlet?\nAnswer:",
    "Bees make honey from",
    "The largest planet of the solar system is",
    "1, 2, 3, 4,",
    "Question: How many days are there in a week?\nAnswer:",
    "Water boils at",
    "The opposite of hot is",
]
OTHERS = ["Don't  say\n\n\n it's 12345 — naïve café 日本語 🙂\t.", "x = 3.14159  # 42nd\r\n\r\n", "    four spaces", ""]
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def ours() -> pmc_jax.PretrainedModel:
    start = time.perf_counter()
    loaded = pmc_jax.load(FILE, mesh=golden.package_mesh())
    print(
        f"{FILE.name}: {loaded.config.family}, {loaded.config.num_layers} layers, {time.perf_counter() - start:.0f} s"
    )
    return loaded


@pytest.fixture(scope="module")
def theirs():
    """transformers' model and tokenizer of the file."""
    source = {"pretrained_model_name_or_path": FILE.parent, "gguf_file": FILE.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval(), transformers.AutoTokenizer.from_pretrained(**source)


def test_tokens_are_those_of_transformers(ours, theirs):
    for text in [*TEXTS, *OTHERS]:
        assert ours.tokenizer(text)["input_ids"] == theirs[1](text)["input_ids"], text


def test_logits_are_those_of_transformers(ours, theirs):
    """Within 1e-4 of the largest logit's size, on short texts and on one that is longer than a usual window."""
    rows = [ours.tokenizer(text)["input_ids"] for text in TEXTS]
    rows.append(np.random.default_rng(0).integers(5, ours.config.vocab_size, 600).tolist())
    worst = 0.0
    for ids in rows:
        tokens, mask = np.array([ids]), np.ones((1, len(ids)), bool)
        wanted = golden_torch.torch_logits(theirs[0], tokens, mask)
        logits = np.asarray(pmc_jax.logits(ours, tokens))
        worst = max(worst, np.abs(logits - wanted).max() / np.abs(wanted).max())
        if len(ids) < 100:
            assert (logits.argmax(-1) == wanted.argmax(-1)).all()
    print(f"largest difference, relative to the largest logit: {worst:.1e}")
    assert worst < 1e-4


def test_greedy_answers_are_those_of_transformers(ours, theirs):
    """Token for token, but where transformers' two best logits are within 1e-3 of each other."""
    prompts = [ours.tokenizer(text)["input_ids"] for text in TEXTS]
    sampler = greedy_sampler(ours, settings.default()).with_sampling(max_new_tokens=NEW_TOKENS)
    answers = [samples[0] for samples in sampler.tokens(left_pad(prompts, TEXTS))]
    same = 0
    for prompt, answer in zip(prompts, answers):
        with torch.no_grad():
            out = theirs[0].generate(
                torch.tensor([prompt]),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        wanted = out.sequences[0, len(prompt) :].tolist()
        best = torch.stack(out.logits)[:, 0].topk(2).values
        print(repr(ours.tokenizer.decode(answer)))
        same += answer == wanted
        assert answer == wanted or float((best[:, 0] - best[:, 1]).min()) < 1e-3
    print(f"{same} of {len(TEXTS)} greedy continuations are token for token the same")
