"""Evaluation logs: drawn ones held against plain loops, broken ones refused."""

import json
import math

import pytest
from drawn_logs import column, drawn, same, stated
from scipy import stats

from pmc_jax.errors import UserError
from pmc_jax.evaluate import log_format, log_rows, logs, membership, summary


def test_a_written_log_reads_back_with_the_aggregates_of_plain_loops(tmp_path):
    made, retain = drawn(0), logs.make_log(drawn(1))
    log = logs.write_log(tmp_path / "log.json", made, retain)
    read = log_format.read_log(tmp_path / "log.json", needs=("forget_truth_ratio", "mia_min_k"))
    assert read == log == json.loads((tmp_path / "log.json").read_text(), parse_constant=pytest.fail)
    recomputed = logs.aggregates(read, retain)
    same(recomputed, stated(read))

    ratios = [
        math.exp(-sum(w["avg_loss"]) / 5) / (math.exp(-p["avg_loss"]) + 1e-10)
        for p, w in zip(made["forget_Q_A_PARA_Prob"], made["forget_Q_A_PERT_Prob"])
    ]
    assert recomputed["forget_truth_ratio"] == pytest.approx(sum(min(r, 1 / r) for r in ratios) / 12)
    assert recomputed["forget_quality"] == pytest.approx(
        stats.ks_2samp(ratios, column(retain, "forget_truth_ratio", "score")).pvalue
    )
    assert recomputed["wf_Q_A_PERT_Prob"] == pytest.approx(
        sum(math.exp(-x) for row in made["wf_Q_A_PERT_Prob"] for x in row["avg_loss"]) / 15
    )
    assert recomputed["retain_Q_A_ROUGE"] == pytest.approx((0 + 0 + 4 / 5) / 3), "an empty answer scores 0"
    wins = [h > f for f in made["mia_loss"]["forget"] for h in made["mia_loss"]["holdout"]]
    assert recomputed["mia_loss"] == pytest.approx(sum(wins) / len(wins)) == read["mia_loss"]["auc"]
    nine = [
        recomputed[f"{s}_{p}"]
        for s in ("retain", "ra", "wf")
        for p in ("Q_A_Prob" if s == "retain" else "Q_A_Prob_normalised", "Q_A_ROUGE", "Truth_Ratio")
    ]
    assert recomputed["model_utility"] == pytest.approx(9 / sum(1 / x for x in nine))


def test_a_part_of_zero_makes_model_utility_zero():
    made = drawn(2)
    for row in made["ra_Q_A_ROUGE"]:
        row["rougeL_recall"] = 0.0
    recomputed = logs.recompute(logs.make_log(made))
    assert recomputed.values["model_utility"] == 0 and "model_utility" not in recomputed.reasons


def test_what_was_not_measured_is_not_in_the_log():
    made = {
        name: rows for name, rows in drawn(3).items() if name in ("forget_Q_A_Prob", "extraction_strength", "mia_loss")
    }
    assert set(logs.make_log(made)) == set(made)
    with pytest.raises(UserError, match=r"^forget_prob: no metric .* forget_Q_A_Prob"):
        logs.make_log({"forget_prob": []})


def test_undefined_rows_are_null_and_left_out():
    made = drawn(4)
    made["forget_Q_A_PARA_Prob"] = log_rows.probability_rows([math.nan, *[1.0] * 11])
    made["exact_memorization"] = log_rows.score_rows([math.nan, 0.25, *[0.75] * 10])
    made["mia_min_k"]["forget"][3] = math.nan
    log = logs.make_log(made, logs.make_log(drawn(5)))
    assert (
        log["exact_memorization"]["value_by_index"]["0"]
        == {"score": None}
        == log["forget_truth_ratio"]["value_by_index"]["0"]
    )
    recomputed = logs.recompute(log, logs.make_log(drawn(5)))
    assert recomputed.values["exact_memorization"] == pytest.approx((0.25 + 7.5) / 11)
    rows = recomputed.rows
    assert rows["exact_memorization"] == 11 == rows["forget_quality"] and rows["mia_min_k"] == 23
    log["exact_memorization"]["value_by_index"]["1"] = None
    assert logs.aggregates(log)["exact_memorization"] == pytest.approx(0.75)


def test_a_model_that_diverged_has_no_aggregate_but_a_reason():
    log = logs.make_log(drawn(6))
    for name, side in [("forget_truth_ratio", None), ("ra_Q_A_Prob_normalised", None), ("mia_min_k", "holdout")]:
        rows = (log[name][side] if side else log[name])["value_by_index"]
        rows["2"] = dict.fromkeys(rows["2"], math.nan)
    log["extraction_strength"]["value_by_index"] = {}
    retain = logs.make_log(drawn(7))
    recomputed = logs.recompute(log, retain)
    wanted = {
        "forget_truth_ratio": "1 of 12 rows are not finite numbers",
        "forget_quality": "1 truth ratios of the model are not finite numbers",
        "ra_Q_A_Prob_normalised": "1 of 5 rows are not finite numbers",
        "model_utility": "needs ra_Q_A_Prob_normalised",
        "mia_min_k": "mia_min_k/holdout: 1 of 12 rows are not finite numbers",
        "mia_min_k/holdout": "1 of 12 rows are not finite numbers",
        "privleak": "mia_min_k/holdout: 1 of 12 rows are not finite numbers",
        "extraction_strength": "no row has a value",
    }
    assert recomputed.reasons == wanted and {n for n, v in recomputed.values.items() if v is None} == set(wanted)
    assert logs.recompute(retain, log).reasons["privleak"].startswith("the retain log: mia_min_k/holdout")


def test_without_a_retain_log_it_is_null_with_a_reason():
    log = logs.make_log(drawn(8))
    recomputed = logs.recompute(log)
    assert log["forget_quality"] == {"agg_value": None} == log["privleak"]
    assert recomputed.values["forget_quality"] is None is recomputed.values["privleak"] and set(recomputed.reasons) == {
        "forget_quality",
        "privleak",
    }
    assert json.loads(json.dumps(recomputed.values)) == recomputed.values


def without(*names):
    def cut(log):
        for name in names:
            del log[name]

    return cut


def never_fooled(log):
    log["mia_min_k"] = {
        "forget": log_rows.indexed(log_rows.score_rows([0.0] * 12)),
        "holdout": log_rows.indexed(log_rows.score_rows([1.0] * 12)),
    }


@pytest.mark.parametrize(
    "rows, change, quality, leak",
    [
        (8, without(), "another forget set: 8 rows, not 12", "another forget set: 8 rows, not 12"),
        (
            12,
            lambda log: log["forget_Q_A_ROUGE"]["value_by_index"]["3"].update(ground_truth="another"),
            "other ground truths",
            "other ground truths",
        ),
        (12, without("forget_truth_ratio"), "the retain log has no forget_truth_ratio", None),
        (12, without("mia_min_k", "forget_Q_A_ROUGE"), None, "the retain log has no mia_min_k"),
        (12, never_fooled, None, "AUC is 1"),
    ],
)
def test_a_retain_log_that_does_not_fit_gives_no_number(rows, change, quality, leak):
    log, retain = logs.make_log(drawn(9)), logs.make_log(drawn(10, rows))
    change(retain)
    recomputed = logs.recompute(log, retain)
    for name, why in {"forget_quality": quality, "privleak": leak}.items():
        assert (recomputed.values[name] is None) == (why is not None)
        assert why is None or why in recomputed.reasons[name]


def test_a_metric_without_its_rows_or_of_another_benchmark_is_not_guessed_at():
    log = logs.make_log(drawn(11)) | {
        "forget_verbmem_ROUGE": {"agg_value": 0.5, "value_by_index": {"0": {"rougeL_f1": 0.5}}}
    }
    del log["forget_truth_ratio"], log["wf_Q_A_ROUGE"]
    recomputed = logs.recompute(log, logs.make_log(drawn(12)))
    wanted = {
        "forget_quality": "the log has no forget_truth_ratio",
        "model_utility": "needs wf_Q_A_ROUGE",
        "forget_verbmem_ROUGE": "not one of TOFU's metrics: no rule to recompute it",
    }
    assert recomputed.reasons == wanted and all(recomputed.values[name] is None for name in wanted)


def broken(change):
    log = logs.make_log(drawn(14))
    change(log)
    return json.dumps(log)


@pytest.mark.parametrize(
    "text, why",
    [
        (json.dumps({"forget_quality": {}})[:-3], "not a JSON file"),
        ("[]", "not a TOFU evaluation log"),
        ('{"model_type": "llama", "vocab_size": 512}', "not a TOFU evaluation log"),
        ('{"forget_quality": 0.5, "model_utility": 0.6}', "summary"),
        ('{"forget_Q_A_Prob": 0.5}', "forget_Q_A_Prob has no value_by_index"),
        (broken(lambda log: log["mia_loss"].pop("holdout")), "mia_loss.holdout has no value_by_index"),
        (
            broken(lambda log: log["forget_truth_ratio"]["value_by_index"]["7"].pop("score")),
            "forget_truth_ratio: row 7 has no score",
        ),
        (
            broken(lambda log: log["wf_Q_A_ROUGE"]["value_by_index"]["1"].pop("rougeL_recall")),
            "wf_Q_A_ROUGE: row 1 has no rougeL_recall",
        ),
        (
            broken(lambda log: log["ra_Q_A_Prob"]["value_by_index"]["0"].update(prob="0.5")),
            "ra_Q_A_Prob: row 0: prob is str, not a number",
        ),
        (broken(without("mia_min_k", "forget_truth_ratio")), "the log lacks forget_truth_ratio, mia_min_k"),
    ],
)
def test_a_broken_or_foreign_file_is_named_with_what_is_missing(tmp_path, text, why):
    file = tmp_path / "some log.json"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        log_format.read_log(file, needs=("forget_truth_ratio", "mia_min_k"))
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and why in message and "\n" not in message


def test_a_file_that_is_absent_or_no_text(tmp_path):
    (tmp_path / "log.json").write_bytes(b"\xff\xfe\x00")
    for path, why in [("log.json", "not a JSON file"), ("nothing.json", "no such file"), (".", "no such file")]:
        with pytest.raises(UserError, match=why):
            log_format.read_log(tmp_path / path)


def test_recomputing_something_else_is_refused():
    with pytest.raises(UserError, match="^the log: not a TOFU evaluation log"):
        logs.aggregates({"a": 1})
    with pytest.raises(UserError, match="^the retain log: not a TOFU evaluation log"):
        logs.aggregates(logs.make_log(drawn(15)), {})


def test_a_summary_has_an_interval_wherever_rows_can_be_drawn_anew():
    log = logs.make_log(drawn(7, rows=40, others=20))
    recomputed = summary.summarise(log, log)
    for name, entry in recomputed.items():
        low, high = entry.get("interval", (entry["value"],) * 2)
        assert low <= entry["value"] <= high, name
    without = {name for name, entry in recomputed.items() if "interval" not in entry and "/" not in name}
    assert without == {"forget_quality", "privleak"}, "a test of two logs, and what follows from two"
    assert recomputed["mia_loss"]["interval"] == membership.auc_interval(
        *(log_format.row_values(log["mia_loss"][side], "score") for side in log_format.SIDES)
    )
    alone = summary.summarise(log, None)
    assert alone["forget_quality"] == {"value": None, "rows": 0, "reason": "no log of a retain model was given"}


def test_model_utility_is_as_sure_as_its_rows():
    """Where all rows are the same, it has no width."""
    log = logs.make_log(drawn(2, rows=30, others=30))
    for name in log_format.UTILITY:
        key = log_format.RULES[name][0]
        for row in log[name]["value_by_index"].values():
            row[key] = 0.5
    low, high = summary.interval("model_utility", log)
    assert low == pytest.approx(high) == pytest.approx(0.5)
