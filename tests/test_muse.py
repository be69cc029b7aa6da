"""MUSE on files of its schema: every number against rouge-score, scikit-learn and log-softmax of one text at a time."""

import json

import numpy as np
import pytest
from muse_files import EXAMPLES, FORGET, HOLDOUT, RETAIN, configs, write_muse
from rouge_score import rouge_scorer
from sklearn.metrics import roc_auc_score
from tiny import LLAMA

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data.questions import load_split
from pmc_jax.errors import UserError
from pmc_jax.evaluate import muse
from pmc_jax.evaluate.benchmark import Setup
from pmc_jax.evaluate.benchmarks import muse as benchmark
from pmc_jax.evaluate.lines import table
from pmc_jax.runs.presets import load_preset
from pmc_jax.sampling.generate import greedy_sampler

SMALL = {
    **{"data.text_window": 16, "sample.max_new_tokens": 32, "sample.num_samples": 8, "sample.temperature": 1.6},
    **{"train.max_length": 256, "train.batch_size": 8, "train.learning_rate": 4e-3, "train.epochs": 5},
    **{"evaluate.relearn_rows": 0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_muse(tmp_path_factory.mktemp("muse") / "MUSE-News")


def preset(name, folder, **changes):
    return settings.changed(load_preset(name), {"data.path": str(folder)} | SMALL | changes)


@pytest.fixture(scope="module")
def knows(folder, tmp_path_factory):
    """A Llama that has learnt forget and retain passages and the questions about them, as `finetune` does it."""
    from pmc_jax.data.tokenizer import train_tokenizer
    from pmc_jax.methods.finetune import finetune
    from pmc_jax.models import pretrained

    # The prompt ends in a space, as MUSE's does: an answer is learnt behind one.
    knowmem, texts = configs()["knowmem"], [*FORGET, *RETAIN]
    for side in ("forget", "retain"):
        for row in knowmem[f"{side}_qa"]:
            texts.append(f"{muse.knowledge_prompt(knowmem[f'{side}_qa_icl'], row['question'])} {row['answer']}\n\n")
    tokenizer = train_tokenizer([{"text": text} for text in texts], 512)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    fresh = pretrained.create(LLAMA | ids | {"max_position_embeddings": 512}, tokenizer, seed=0)
    config = preset("muse_news", folder, **{"train.epochs": 70, "train.learning_rate": 5e-3, "train.batch_size": 5})
    path = tmp_path_factory.mktemp("knows") / "hf"
    pmc_jax.export(finetune(fresh, [{"text": text} for text in texts], config)[0], path)
    return path


def log_probs(model, tokenizer, text):
    """By torch, of each token but the first."""
    import torch

    ids_1T = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        log_p_TV = torch.log_softmax(model(ids_1T).logits[0, :-1].double(), dim=-1)
    return log_p_TV.gather(1, ids_1T[0, 1:, None])[:, 0].numpy()


def lowest(values, share=0.4):
    return np.mean(np.sort(values)[: int(share * len(values))])


@pytest.mark.parity
def test_from_files_to_unlearned_and_measured(cli, folder, knows, tmp_path):
    """The forget side is said before and not after, the other stays, and every number is recomputed."""
    flags = [f"--config.{k}={v}" for k, v in (SMALL | {"data.path": folder, "evaluate.retain_rows": 12}).items()]
    given = ["--config=muse_news", *flags]
    said = cli("unlearn", *given, f"--config.model.path={knows}", f"--workdir={tmp_path / 'run'}")
    assert said.code == 0, said.err
    results = {}
    for name, path in {"before": knows, "after": tmp_path / "run" / "hf"}.items():
        said = cli("evaluate", *given, f"--config.model.path={path}", f"--workdir={tmp_path / name}")
        assert said.code == 0, said.err
        results[name] = json.loads((tmp_path / name / "result.json").read_text())
        assert "Privacy leak" in said.out and "Verbatim memorisation" in (tmp_path / name / "report.html").read_text()
        answers = json.loads((tmp_path / name / "parts" / "muse_answers.json").read_text())["found"]
        assert {k: len(v) for k, v in answers.items()} == {"verbmem": 8, "knowmem_forget": 5, "knowmem_retain": 5}
        for variant, stems in {"muse": False, "open_unlearning": True}.items():
            scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=stems)
            for kind, rows in answers.items():
                mean = np.mean([scorer.score(r["truth"], r["answer"])["rougeL"].fmeasure for r in rows])
                assert results[name]["muse"][kind][variant]["mean"] == pytest.approx(mean, abs=1e-12)
    before, after = (results[name]["muse"] for name in ("before", "after"))
    # All passages share the frame of their sentences, which the retain side keeps.
    assert before["verbmem"]["muse"]["mean"] > 0.9 and after["verbmem"]["muse"]["mean"] < 0.75
    assert before["knowmem_retain"]["muse"]["mean"] > 0.7
    assert results["after"]["model"]["retain"] > 0.7

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "hf", dtype="float32")
    tokenizer = pmc_jax.load(knows).tokenizer
    texts = {"forget": FORGET, "holdout": HOLDOUT}
    for variant, cut in {"muse": None, "open_unlearning": -1}.items():
        scores = {side: [lowest(log_probs(model, tokenizer, t)[:cut]) for t in ts] for side, ts in texts.items()}
        # MUSE's: forget rows as positives, by how likely they are, and then the other way round.
        auc = roc_auc_score([1] * 8 + [0] * 8, scores["forget"] + scores["holdout"])
        leak = after["privleak"][variant]
        assert leak["auc"] == pytest.approx(auc, abs=1e-9) and leak["rows"] == 16
        assert leak["value"] == pytest.approx(100 * ((1 - auc) - 0.4772) / 0.4772, abs=1e-6)


@pytest.mark.parity
def test_prompts_and_answers_are_muses(folder, knows):
    """The prompt of a question shows the examples, the answer ends at a blank line, and truths are cut by tokens."""
    config = preset("muse_news", folder)
    checkpoint = pmc_jax.load(knows)
    setup = Setup(None, config, {"muse": benchmark.load_sets(config)}, greedy_sampler(checkpoint, config))
    said, rows = benchmark.measure_answers(setup), configs()
    examples, questions = rows["knowmem"]["forget_qa_icl"], rows["knowmem"]["forget_qa"]
    assert len(examples) == EXAMPLES
    prompt = muse.knowledge_prompt(examples, questions[0]["question"])
    assert prompt.startswith("Question: ") and prompt.endswith("?\nAnswer: ") and prompt.count("\n\n") == EXAMPLES
    tokens = list(checkpoint.tokenizer(prompt)["input_ids"])
    for _ in range(muse.ANSWER_TOKENS):
        tokens.append(int(np.argmax(np.asarray(pmc_jax.logits(checkpoint, [tokens]))[0, -1])))
        if tokens[-1] in checkpoint.end_tokens:
            break
    plain = checkpoint.tokenizer.decode(
        tokens[len(checkpoint.tokenizer(prompt)["input_ids"]) :], skip_special_tokens=True
    )
    assert said["knowmem_forget"][0]["answer"] == plain.split("\n\n")[0].split("\nQuestion")[0].split("Question:")[0]
    for row, answer in zip(rows["verbmem"]["forget"], said["verbmem"], strict=True):
        ids = checkpoint.tokenizer(row["gt"])["input_ids"][:128]
        assert answer["truth"] == checkpoint.tokenizer.decode(ids, skip_special_tokens=True)
    assert muse.cut_answer("Ulm\n\nQuestion: who") == muse.cut_answer("Ulm\nQuestion: who") == "Ulm"


@pytest.mark.parametrize("seed", range(5))
def test_scores_by_drawn_texts(seed):
    drawn = np.random.default_rng(seed)
    words = ["walked", "walking", "boats", "boat", "ice", "Ulm", "1740", "the", "kept", "keeping"]
    for _ in range(50):
        truth, answer = (" ".join(drawn.choice(words, drawn.integers(0, 12))) for _ in range(2))
        for variant, how in muse.VARIANTS.items():
            scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=variant == "open_unlearning")
            assert muse.rouge_f1(truth, answer, how) == pytest.approx(scorer.score(truth, answer)["rougeL"].fmeasure)
    texts = [-drawn.exponential(size=drawn.integers(4, 40)) for _ in range(9)]
    for variant, cut in {"muse": None, "open_unlearning": -1}.items():
        wanted = [-lowest(values[:cut]) for values in texts]
        assert muse.attack_scores(texts, muse.VARIANTS[variant]) == pytest.approx(wanted)


def test_every_config_is_read_by_its_name(folder):
    for config, splits in configs().items():
        for split, rows in splits.items():
            assert load_split(str(folder), f"{config}/{split}") == rows
    books = preset("muse_books", folder)
    assert books.evaluate.muse_auc == 0.5393 and books.data.retain == "raw/retain1"


def test_what_is_absent_is_told(folder, tmp_path):
    with pytest.raises(UserError, match="none of MUSE's splits"):
        (tmp_path / "other").mkdir()
        benchmark.load_sets(preset("muse_news", tmp_path / "other"))
    empty = {name: {v: dict(mean=None, low=None, high=None, rows=0) for v in muse.VARIANTS} for name in benchmark.ASKED}
    lines = table(benchmark.VIEW, empty | {"privleak": {"value": None, "reason": "no texts"}}).lines
    assert lines[-1].note == "no texts" and all(line.note == "the data has no such rows" for line in lines[:-1])
    leak = {"auc": 0.75, "reference": None, "rows": 4, "value": None}
    lines = table(benchmark.VIEW, empty | {"privleak": dict.fromkeys(muse.VARIANTS, leak)}).lines
    shown = [(line.value, line.note) for line in lines[-4:]]
    assert [value for value, _ in shown] == [0.25, None, 0.75, None] and "evaluate.muse_auc" in shown[1][1]
