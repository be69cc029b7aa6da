"""`pmc-jax evaluate` on a tiny checkpoint: files, resume, the retain model, TOFU's metrics; and official logs from the
command line.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmc_jax import config as settings
from pmc_jax.data.packing import FORGET, Row
from pmc_jax.errors import UserError
from pmc_jax.evaluate import attacks, drift, gradients, log_format, logs, scoring, tofu_rows
from pmc_jax.evaluate.benchmarks import chosen, tofu
from pmc_jax.evaluate.measure import measurements_of, parts_of
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.files import write_lines


@pytest.fixture
def evaluate(cli, tiny_folder, data_folder, tmp_path):
    """evaluate(*more) -> Said: an evaluation of the tiny checkpoint with the same model as its own retain model."""

    def run(*more):
        flags = {
            "model.path": tiny_folder,
            "data.path": data_folder,
            "data.forget": "forget20",
            "data.retain": "retain80",
        }
        flags |= {
            "evaluate.max_new_tokens": 64,
            "evaluate.retain_rows": 8,
            "evaluate.leak_samples": 4,
            "evaluate.relearn_rows": 2,
            "evaluate.relearn_updates": 1,
            "evaluate.retain_model": tiny_folder,
            "evaluate.original_model": tiny_folder,
        }
        return cli("evaluate", *(f"--config.{k}={v}" for k, v in flags.items()), f"--workdir={tmp_path / 'run'}", *more)

    return run


PARTS = [measurement.name for measurement in measurements_of(parts_of(chosen("tofu")))]


@pytest.fixture
def finished(evaluate, tmp_path):
    """result.json and the folder of an evaluation with all that there is: the model is its own retain and its own
    original model.
    """
    assert evaluate().code == 0
    return json.loads((tmp_path / "run" / "result.json").read_text()), tmp_path / "run"


def measured(result):
    """What an evaluation found, without how long it took."""
    return {key: value for key, value in result.items() if key not in ("seconds", "evaluate_parts")}


def test_an_evaluation_from_start_to_end_and_stopped_between_parts(finished, evaluate, splits):
    """The model has memorised the forget rows and is its own retain model: full extraction, a KS test that sees no
    difference.
    """
    result, run = finished
    metrics = result["tofu"]
    assert metrics["forget_quality"]["value"] == 1.0 and metrics["forget_quality"]["rows"] == 8
    assert metrics["exact_memorization"]["value"] > 0.95 and metrics["forget_Q_A_Prob"]["value"] > 0.8
    assert metrics["extraction_strength_strict"]["value"] <= metrics["extraction_strength"]["value"]
    for name in ("retain_Truth_Ratio", "model_utility", "mia_loss"):
        low, high = metrics[name]["interval"]
        assert low <= metrics[name]["value"] <= high, name
    assert metrics["mia_loss"]["value"] > 0.9 and 0 <= metrics["model_utility"]["value"] < 1
    assert list(result["evaluate_parts"]) == PARTS
    for curve in result["relearning"].values():
        assert [look["updates"] for look in curve["looks"]] == [0, 1]
    assert (
        result["leakage"]["sampled"]["measures"]["worst"]["mean"] > 0.8 and result["least_likely_option"]["mean"] == 0.0
    )
    for kind in ("forget_words", "other_words"):
        assert result["drift"][kind]["mean"] == pytest.approx(0, abs=1e-6) and result["drift"][kind]["words"] >= 8, (
            "nothing changed since the original"
        )
    assert (
        result["neighbours"]["change"]["near"] == {"mean": 0, "low": 0, "high": 0, "rows": 2}
        and result["neighbours"]["recall"]["far"]["mean"] > 0.8
    )
    log = log_format.read_log(run / "tofu_log.json", needs=(*log_format.ATTACKS, *log_format.DERIVED))
    for name, value in logs.aggregates(log, log_format.read_log(run / "retain_log.json")).items():
        assert value == metrics[name]["value"], name
    nothing = [row["score"] for row in log["mia_reference"]["forget"]["value_by_index"].values()]
    assert nothing == pytest.approx([0] * 8, abs=1e-5), "the reference is the model itself"
    truths = [row["ground_truth"] for row in log["forget_Q_A_ROUGE"]["value_by_index"].values()]
    assert truths == [row["answer"] for row in splits["forget20"]]

    # Stopped between parts: what is there is taken, not made again, and the end is the same.
    (run / "result.json").unlink()
    for name in ("tofu_answers", "relearning", "original_model"):
        (run / "parts" / f"{name}.json").unlink()
    kept = {file.name: file.stat().st_mtime_ns for file in (run / "parts").iterdir()}
    assert len(kept) == len(PARTS) - 3 and evaluate().code == 0
    assert measured(json.loads((run / "result.json").read_text())) == measured(result)
    assert {name: (run / "parts" / name).stat().st_mtime_ns for name in kept} == kept
    assert "nothing was changed" in " ".join(evaluate().out.split())


def test_a_part_that_fails_leaves_those_before_it(evaluate, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(attacks, "sampled_leakage", stop)
    assert evaluate("--config.evaluate.retain_model=", "--config.evaluate.original_model=").code == 130
    assert {file.stem for file in (tmp_path / "run" / "parts").iterdir()} == set(
        PARTS[: PARTS.index("leakage_sampled")]
    )
    assert not (tmp_path / "run" / "result.json").exists()


def test_what_is_not_given_is_not_computed_and_said(evaluate, tmp_path):
    said = evaluate(
        "--config.evaluate.retain_model=",
        "--config.evaluate.original_model=",
        "--config.evaluate.leak_samples=0",
        "--config.evaluate.relearn_rows=0",
    )
    assert said.code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for name in ("forget_quality", "privleak", "mia_reference"):
        assert result["tofu"][name]["value"] is None and "retain" in result["tofu"][name]["reason"]
    assert result["tofu"]["mia_zlib"]["value"] > 0.5
    assert (
        "original_model" in result["drift"]["reason"] and "original_model" in result["neighbours"]["change"]["reason"]
    )
    assert result["neighbours"]["recall"]["near"]["rows"] == 2
    assert "off" in result["leakage"]["sampled"]["reason"] and "off" in result["relearning"]["model"]["reason"]
    out = " ".join(said.out.split())
    assert (
        "drift: not computed: no model from before unlearning was given (evaluate.original_model)" in out
        and "leakage: not computed" in out
    )


def test_own_files_have_what_they_allow(evaluate, tmp_path, splits):
    """No split of TOFU's belongs to an own forget file, and without answers there is nothing to look for."""
    rows = splits["forget20"][:2]
    own = tmp_path / "own.jsonl"
    write_lines(own, [{"question": r["question"], "answer": r["answer"]} for r in rows])
    common = [f"--config.data.forget_file={own}", "--config.evaluate.retain_model="]
    assert evaluate(*common).code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (
        "forget file is your own" in result["tofu"]["reason"]
        and "forget20_perturbed" in result["least_likely_option"]["reason"]
    )
    assert result["leakage"]["sampled"]["measures"]["worst"]["rows"] == 2 and result["drift"]["forget_words"][
        "mean"
    ] == pytest.approx(0, abs=1e-6)
    write_lines(own, [{"question": r["question"]} for r in rows])
    assert evaluate(*common, f"--workdir={tmp_path / 'bare'}").code == 0
    result = json.loads((tmp_path / "bare" / "result.json").read_text())
    for part in (result["leakage"]["sampled"], result["relearning"]["model"], result["drift"]):
        assert part["reason"] == "the forget rows have no answers"
    assert result["model"]["forget_truth"] == "original answers"


def test_own_files_ask_the_hub_for_nothing(small, monkeypatch):
    monkeypatch.setattr(tofu, "has_split", lambda *_: pytest.fail("asked for a split of data.path"))
    own_files = {"data.path": "locuslab/TOFU", "data.forget_file": "a.jsonl", "data.retain_file": "b.jsonl"}
    assert tofu.load_sets(small(own_files)) == {}


def test_another_retain_log_is_another_evaluation(evaluate, tmp_path):
    quick = ("--config.evaluate.retain_model=", "--config.evaluate.original_model=")
    quick += ("--config.evaluate.leak_samples=0", "--config.evaluate.relearn_rows=0")
    assert evaluate(*quick).code == 0
    said = evaluate(*quick, f"--retain_log={tmp_path / 'run' / 'tofu_log.json'}")
    assert said.code == 2 and "retain_log: None there" in said.err


@pytest.mark.parametrize("setting", ["retain_model", "original_model"])
def test_another_model_that_is_none_is_told_at_once(evaluate, tmp_path, setting):
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "t5", "architectures": ["T5Model"]}')
    for path, words in (
        ("/no/such", "no such folder"),
        (tmp_path / "empty", "config.json"),
        (tmp_path / "odd", "T5Model"),
    ):
        said = evaluate(f"--config.evaluate.{setting}={path}")
        assert said.code == 2 and said.err.count("\n") == 1, said
        assert f"evaluate.{setting}='{path}'" in said.err and words in said.err and "model.path" not in said.err, said
    assert not (tmp_path / "run").exists()


def test_gradient_norms_are_those_of_the_mean_losses(tiny_checkpoint):
    rng = np.random.default_rng(0)
    lengths = [(3, 4), (20, 130), (2, 1)]  # two padded lengths
    rows = [Row(rng.integers(5, 400, prompt + answer).tolist(), prompt, FORGET) for prompt, answer in lengths]

    @jax.jit
    def gradient(params, tokens_T, start):
        def loss(params):
            T = len(tokens_T)
            hidden_1TD, _ = tiny_checkpoint.model.apply(
                {"params": params}, tokens_T[None], np.arange(T)[None], np.tril(np.ones((1, T, T), bool))
            )
            log_p_TV = jax.nn.log_softmax(
                tiny_checkpoint.model.apply({"params": params}, hidden_1TD[0], method="unembed")
            )
            picked_T = log_p_TV[np.arange(T - 1), tokens_T[1:]]
            return -jnp.sum(jnp.where(np.arange(1, T) >= start, picked_T, 0)) / (T - start)

        return jax.grad(loss)(params)

    def norm(row):
        leaves = jax.tree.leaves(gradient(tiny_checkpoint.params, np.array(row.tokens), row.start))
        return np.sqrt(sum(float((np.asarray(x, np.float64) ** 2).sum()) for x in leaves))

    norms = gradients.gradient_norms(tiny_checkpoint.model, tiny_checkpoint.params, rows)
    assert norms == pytest.approx([norm(row) for row in rows], rel=1e-4)
    assert gradients.gradient_norms(tiny_checkpoint.model, tiny_checkpoint.params, []).size == 0


def test_odd_rows_have_results(tiny_checkpoint, small):
    """One word, no Latin letter, a duplicate, an empty generation, 2000 tokens."""
    answers = ["I", "ژاله", "I", "word " * 1000]
    rows = [
        {"question": q, "answer": a, "paraphrased_answer": a, "perturbed_answer": ["x", "y"]}
        for q, a in zip(["Who?", "誰？", "Who?", "What?"], answers)
    ]
    sets = {"forget": rows, "holdout": [{"question": "Why?", "answer": "No"}]}
    sampler = greedy_sampler(tiny_checkpoint, small({"evaluate.max_new_tokens": 4}))
    assert len(sampler.text.answer(answers[-1])) > 2000
    rows_by_metric = tofu_rows.likelihood_rows(sets, scoring.score_sets(sampler, sets))
    rows_by_metric |= tofu_rows.answer_rows(sampler, sets, {"誰？": ""})
    log = logs.make_log(rows_by_metric | tofu_rows.gradient_rows(sampler, sets))
    ratios = [row["score"] for row in log["forget_truth_ratio"]["value_by_index"].values()]
    assert np.isfinite(ratios).all() and ratios[0] == ratios[2]
    assert log["forget_Q_A_ROUGE"]["value_by_index"]["1"]["rougeL_recall"] == 0.0
    assert 0 <= log["mia_min_k"]["agg_value"] <= 1 and 0 <= log["mia_gradnorm"]["agg_value"] <= 1
    scores = scoring.score_sets(sampler, {"unrelated": rows})["unrelated_Q_A_Prob"]
    words = drift.words_of_rows(sampler.text, rows, scores)
    assert [[word for word, _ in row_words][:1] for row_words in words] == [["i"], ["ژاله"], ["i"], ["word"]]
    assert len(words[3]) == 1000
    assert all(0 <= p <= 1 for row_words in words for _, p in row_words)


def test_wrong_answers_must_be_as_many_in_each_row(tmp_path):
    rows = [{"question": "Q", "answer": "A", "perturbed_answer": ["x"] * count} for count in (3, 2)]
    write_lines(tmp_path / "forget10_perturbed.jsonl", rows)
    config = settings.default()
    config.data.path = str(tmp_path)
    with pytest.raises(UserError, match="row 2: 'perturbed_answer' has 2 wrong answers, that of row 1 has 3"):
        tofu.load_sets(config)


def test_official_logs_from_the_command_line(cli, shared):
    folder = shared("oracle")
    full, retain = (folder / f"tofu_Llama-3.2-1B-Instruct_{name}.json" for name in ("full_evals_forget10", "retain90"))
    said = cli("evaluate", f"--log={full}", f"--retain_log={retain}")
    official = json.loads(full.read_text())
    recomputed = json.loads(said.out)
    for name, entry in official.items():
        assert recomputed[name] == pytest.approx(entry["agg_value"], abs=1e-6), name
    said = cli("evaluate", f"--log={full}")
    assert json.loads(said.out)["forget_quality"] is None and "forget_quality: not computed" in said.err
    said = cli("evaluate", "--log=/no/such.json")
    assert said.code == 2 and "/no/such.json" in said.err
