"""The two official evaluation logs: their aggregates and rows recomputed."""

import numpy as np
import pytest
from drawn_logs import close, column, same, stated

from pmc_jax.evaluate import log_format, log_rows, logs, membership, metrics

OFFICIAL = {
    "full": "tofu_Llama-3.2-1B-Instruct_full_evals_forget10.json",
    "retain": "tofu_Llama-3.2-1B-Instruct_retain90.json",
}
MEASURED = [n for n in (*log_format.RULES, *log_format.ATTACKS) if "ruth_" not in n and "normalised" not in n]


@pytest.fixture(scope="module")
def official(shared):
    folder = shared("oracle")
    return {name: log_format.read_log(folder / file) for name, file in OFFICIAL.items()}


def primary(log):
    recomputed = {}
    for name in MEASURED:
        if name in log:
            rows = list(log[name].get("value_by_index", {}).values())
            recomputed[name] = rows or {side: column(log, name, "score", side) for side in ("forget", "holdout")}
    return recomputed


def test_every_aggregate_of_the_official_full_model(official):
    recomputed = logs.recompute(official["full"], official["retain"])
    same(recomputed.values, stated(official["full"]))
    assert not recomputed.reasons and len(recomputed.values) == 31 + 12
    assert (
        recomputed.rows["forget_quality"] == 400
        and recomputed.rows["mia_zlib"] == 800
        and recomputed.rows["model_utility"] == 400 + 100 + 117
    )


def test_every_aggregate_of_the_official_retain_model(official):
    """Its privacy leak was made without a retain model: against an AUC of one half, which is said."""
    log = official["retain"]
    recomputed = logs.recompute(log)
    same(recomputed.values, stated(log))
    assert recomputed.values["forget_quality"] is None and recomputed.reasons == {
        "forget_quality": "no log of a retain model was given"
    }
    assert "0.5" in recomputed.notes["privleak"] and recomputed.rows["privleak"] == 800
    itself = logs.recompute(log, log)
    assert itself.values["forget_quality"] == 1 and itself.values["privleak"] == 0
    assert itself.notes == {"forget_quality": "p; log10 p 0.00, Kolmogorov-Smirnov distance D 0.0000"}


def test_privacy_leak_of_a_log_made_with_a_retain_model_needs_it(official):
    full = logs.recompute(official["full"])
    assert full.values["privleak"] is None and full.reasons["privleak"] == "no log of a retain model was given"
    ours = logs.make_log(primary(official["retain"]))
    assert ours["privleak"]["agg_value"] is None, "our own log never takes one half for a model that was not measured"


@pytest.mark.parametrize("which", OFFICIAL)
def test_official_rows_follow_from_the_losses_and_answers(official, which):
    log = official[which]
    rows = {name: column(log, name, "avg_loss") for name in log if name.endswith("_Prob")}
    for name, ratio in log_rows.RATIOS.items():
        right = rows[f"{name}_Q_A_PARA_Prob" if name in ("forget", "retain") else f"{name}_Q_A_Prob"]
        np.testing.assert_allclose(
            metrics.truth_ratio_geometric(right, rows[f"{name}_Q_A_PERT_Prob"]), column(log, ratio, "score"), rtol=1e-9
        )
    for name in ("ra", "wf"):
        probs = (column(log, f"{name}_Q_A_{kind}", "prob") for kind in ("Prob", "PERT_Prob"))
        np.testing.assert_allclose(
            metrics.normalised_probability(*probs), column(log, f"{name}_Q_A_Prob_normalised", "prob"), rtol=1e-9
        )
    truths, losses = column(log, "forget_Q_A_ROUGE", "ground_truth"), rows["forget_Q_A_Prob"]
    np.testing.assert_allclose(
        membership.loss_by_zlib(losses, truths), column(log, "mia_zlib", "score", "forget"), rtol=1e-9
    )
    np.testing.assert_allclose(np.exp(-np.array(losses)), column(log, "forget_Q_A_Prob", "prob"), rtol=1e-6)


@pytest.mark.parametrize("name", ["forget_Q_A_ROUGE", "ra_Q_A_ROUGE", "wf_Q_A_ROUGE"])
def test_official_rouge_follows_from_the_answers(official, name):
    rows = list(official["full"][name]["value_by_index"].values())
    made = log_rows.rouge_rows(*([row[key] for row in rows] for key in ("input", "ground_truth", "generation")))
    assert [list(row) for row in made] == [list(row) for row in rows]
    for key in ("rouge1_recall", "rougeL_f1", "rougeL_recall"):
        np.testing.assert_allclose([row[key] for row in made], [row[key] for row in rows], atol=1e-12, err_msg=key)


def test_official_log_written_anew_from_what_was_measured_alone(official, tmp_path):
    full, retain = official["full"], official["retain"]
    logs.write_log(tmp_path / "log.json", primary(full), retain)
    again = log_format.read_log(tmp_path / "log.json")

    def apart(one, other, path=""):
        if isinstance(one, dict) and isinstance(other, dict):
            assert list(one) == list(other), path
            return [a for k in one for a in apart(one[k], other[k], f"{path}/{k}")]
        return [] if close(one, other) else [(path, one, other)]

    assert not apart(again, full)
