"""`pmc-jax evaluate` on a tiny checkpoint: files, resume, the retain model, TOFU's metrics; and official logs from the command line."""

import json

import jax
import numpy as np
import pytest

from pmc_jax.draw import GREEDY
from pmc_jax.evaluate import logs, tofu
from pmc_jax.generate import make_generator
from pmc_jax.packing import Row


@pytest.fixture
def evaluate(cli, tiny_folder, data_folder, tmp_path):
    """evaluate(*more) -> Said: an evaluation of the tiny checkpoint with the same model as its own retain model."""

    def run(*more):
        flags = {"model.path": tiny_folder, "data.path": data_folder, "data.forget": "forget20", "data.retain": "retain80"}
        flags |= {
            "evaluate.max_new_tokens": 64,
            "evaluate.retain_rows": 8,
            "evaluate.leak_samples": 4,
            "evaluate.relearn_rows": 2,
            "evaluate.relearn_updates": 1,
            "evaluate.retain_model": tiny_folder,
        }
        return cli("evaluate", *(f"--config.{k}={v}" for k, v in flags.items()), f"--workdir={tmp_path / 'run'}", *more)

    return run


def test_an_evaluation_from_start_to_end_and_resumed(evaluate, tmp_path, splits):
    """The model has memorised the forget rows and is its own retain model: full extraction, a KS test that sees no difference."""
    run = tmp_path / "run"
    assert evaluate().code == 0
    result = json.loads((run / "result.json").read_text())
    found = result["tofu"]
    assert found["forget_quality"]["value"] == 1.0 and found["forget_quality"]["rows"] == 8
    assert found["exact_memorization"]["value"] > 0.95 and found["forget_Q_A_Prob"]["value"] > 0.8
    low, high = found["retain_Truth_Ratio"]["interval"]
    assert low <= found["retain_Truth_Ratio"]["value"] <= high
    assert found["mia_loss"]["value"] > 0.9 and 0 <= found["model_utility"]["value"] < 1
    assert set(result["evaluate_parts"]) == {"answers", "retain model", "relearning, retain model", "likelihoods", "TOFU", "leakage", "relearning"}
    assert [look["updates"] for look in result["attacks"]["relearning"]] == [0, 1]
    assert result["attacks"]["sampled"]["worst"]["mean"] > 0.8 and result["attacks"]["least likely option"]["mean"] == 0.0
    log = logs.read_log(run / "tofu_log.json", needs=(*logs.ATTACKS, *logs.DERIVED))
    for name, value in logs.aggregates(log, logs.read_log(run / "retain_log.json")).items():
        assert value == found[name]["value"], name
    truths = [row["ground_truth"] for row in log["forget_Q_A_ROUGE"]["value_by_index"].values()]
    assert truths == [row["answer"] for row in splits["forget20"]]

    # Stopped before its end: what is there is taken, not made again.
    (run / "result.json").unlink()
    summary = json.loads((run / "summary.json").read_text()) | {"utility": 12.5}
    (run / "summary.json").write_text(json.dumps(summary))
    assert evaluate().code == 0
    again = json.loads((run / "result.json").read_text())
    assert again["model"]["utility"] == 12.5 and again["tofu"] == found
    assert "nothing was changed" in " ".join(evaluate().out.split())


def test_without_a_retain_model_it_says_not_computed(evaluate, tmp_path):
    said = evaluate("--config.evaluate.retain_model=")
    assert said.code == 0
    found = json.loads((tmp_path / "run" / "result.json").read_text())["tofu"]
    for name in ("forget_quality", "privleak"):
        assert found[name]["value"] is None and "retain" in found[name]["reason"]
    assert "mia_reference" not in found and found["mia_zlib"]["value"] > 0.5


def test_gradient_norm_is_that_of_the_mean_loss(tiny_checkpoint):
    row = Row([7, 8, 9, 10, 11, 12, 13], 3, 1)

    def loss(params):
        tokens = np.array([row.tokens])
        mask = np.tril(np.ones((1, 7, 7), bool))
        hidden, _ = tiny_checkpoint.model.apply({"params": params}, tokens, np.arange(7)[None], mask)
        log_p = jax.nn.log_softmax(tiny_checkpoint.model.apply({"params": params}, hidden, method="unembed"))
        return -sum(log_p[0, at - 1, row.tokens[at]] for at in range(3, 7)) / 4

    leaves = jax.tree.leaves(jax.grad(loss)(tiny_checkpoint.params))
    wanted = np.sqrt(sum(float((np.asarray(x, np.float64) ** 2).sum()) for x in leaves))
    found = tofu.gradient_norms(tiny_checkpoint.model, tiny_checkpoint.params, [row, row])
    assert found == pytest.approx([wanted, wanted], rel=1e-4)


def test_one_word_duplicate_and_non_latin_rows_have_results(tiny_checkpoint, small):
    rows = [
        {"question": q, "answer": a, "paraphrased_answer": a, "perturbed_answer": ["x", "y"]}
        for q, a in (("Who?", "I"), ("誰？", "ژاله"), ("Who?", "I"))
    ]
    sets = {"forget": rows, "holdout": [{"question": "Why?", "answer": "No"}]}
    config = small({"evaluate.max_new_tokens": 4})
    generator = make_generator(tiny_checkpoint, config, GREEDY, 1)
    found = logs.make_log(tofu.evaluate_tofu(generator, sets, tofu.score_sets(generator, sets), {"誰？": ""}))
    ratios = [row["score"] for row in found["forget_truth_ratio"]["value_by_index"].values()]
    assert np.isfinite(ratios).all() and ratios[0] == ratios[2]
    assert found["forget_Q_A_ROUGE"]["value_by_index"]["1"]["rougeL_recall"] == 0.0
    assert 0 <= found["mia_min_k"]["agg_value"] <= 1


def test_official_logs_from_the_command_line(cli, shared):
    folder = shared("oracle")
    full, retain = (folder / f"tofu_Llama-3.2-1B-Instruct_{name}.json" for name in ("full_evals_forget10", "retain90"))
    said = cli("evaluate", f"--log={full}", f"--retain_log={retain}")
    official = json.loads(full.read_text())
    found = json.loads(said.out)
    for name, entry in official.items():
        assert found[name] == pytest.approx(entry["agg_value"], abs=1e-6), name
    said = cli("evaluate", f"--log={full}")
    assert json.loads(said.out)["forget_quality"] is None and "forget_quality: not computed" in said.err
    said = cli("evaluate", "--log=/no/such.json")
    assert said.code == 2 and "/no/such.json" in said.err
