"""What the report says of evaluations, and of neighbouring knowledge."""

import json
import re

from report_pages import MEASURED, TOFU, interval, leaks, parsed

from pmc_jax.report import page, read
from pmc_jax.tracking.files import read_lines, write_json, write_lines


def test_an_evaluation_alone(make_evaluation):
    shown = parsed(page.write([make_evaluation()]))
    assert (
        "The model before" in shown.text
        and "Round by round" not in shown.text
        and "0.4375 [0.250, 0.625] 8 rows" in shown.text
    )
    worst = MEASURED["leakage"]["prefilled"]["measures"]["worst"]
    for words in (
        f"{worst['mean']:.3f} [{worst['low']:.3f}, {worst['high']:.3f}]",
        "100 answers sampled",
        "Mean sample",
        "M_sigma",
        "0.250 [0.000, 0.500]",
        "0.167",
        "Near less far",
        "-0.031 [-0.100, +0.040] 12 rows",
        "-0.077",
        "-0.0125 [-0.0200, +0.0010] 12 rows, 345 words, standard deviation 0.0625",
        "Other words",
        "retain model",
        "update 10 runs/evaluated: 0.5",
    ):
        assert words in shown.text, words
    absent = shown.text.split("Not measured A good number")[1]
    for topic in (
        "Membership attacks",
        "Forget quality",
        "Leakage",
        "Relearning",
        "Drift",
        "Neighbouring",
        "Least likely",
    ):
        assert topic not in absent, topic


def test_the_model_that_never_saw_the_secret_stands_beside(make_evaluation):
    by_content, never_saw = leaks(3, 0.2), leaks(4, 0.1)
    leakage = {key: leaks(0, 0.5) | {"content_recall": by_content} for key in ("sampled", "prefilled")}
    work = make_evaluation("one", {"leakage": leakage | {"retain_model": never_saw | {"content_recall": never_saw}}})
    result = json.loads((work / "result.json").read_text())
    result["model"]["never_saw"] = {"forget": interval(0.379, 0.35, 0.4), "content_recall": interval(0.147, 0.1, 0.2)}
    result["fluency"] = {"forget_perplexity": {"median": 12.5, "rows": 12}}
    write_json(work / "result.json", result)
    text = parsed(page.write([work])).text
    assert "Forget, by a model that never saw it now 0.379 [0.350, 0.400]" in text
    assert "Forget, by a model that never saw it now 0.147 [0.100, 0.200]" in text and "never saw them 0.147" in text
    assert f"content recall now {by_content['measures']['worst']['mean']:.3f}" in text
    assert f"by a model that never saw it, content recall now {never_saw['measures']['mean']['mean']:.3f}" in text
    assert "12.5 12 rows" in text and "when it is no sentence" not in text


def test_what_an_evaluation_could_not_compute(make_evaluation):
    reason = {"reason": "no <b>reason</b>"}
    missing = {
        "tofu": reason,
        "least_likely_option": reason,
        "leakage": {"sampled": reason, "prefilled": reason},
        "drift": reason,
    }
    quality = TOFU | {"forget_quality": {"value": None, "rows": 0, "reason": "no log of a retain model was given"}}
    bare, no_retain = make_evaluation("bare", missing), make_evaluation("no_retain", {"tofu": quality})
    text = parsed(page.write([bare])).text
    assert "not computed: no <b>reason</b>" in text and "Relearning" in text
    absent = text.split("Not measured A good number")[1]
    assert all(
        words in absent
        for words in ("Membership attacks", "Least likely option", "Leakage under sampling", "Drift in unrelated text")
    )
    assert "Neighbouring knowledge" not in absent
    text = parsed(page.write([bare, no_retain])).text
    assert "not computed: no log of a retain model was given" in text and "Drift in unrelated text (runs/bare)" in text
    assert "Forget quality :" in text and "Membership attacks (runs/bare)" in text


def test_leakage_of_several_evaluations_is_spread_side_by_side(make_evaluation, make_run):
    before, after = (
        make_evaluation("before", {"leakage": {"sampled": leaks(0, 1), "prefilled": leaks(0, 1)}}),
        make_evaluation("after"),
    )
    shown = parsed(page.write([before, after]))
    pillars = [attrs["class"] for attrs in shown.of("rect") if "pillar" in attrs.get("class", "")]
    assert {"pillar c0", "pillar c1", "pillar before", "pillar after"} >= set(pillars) >= {"pillar c0", "pillar c1"}
    mixed = page.write([make_run("unlearned"), after])
    text = parsed(mixed).text
    assert "not computed" in text and "Leakage under sampling (runs/unlearned)" in text
    relearning = mixed.read_text(encoding="utf-8").split('id="relearning"')[1].split("</section>")[0]
    assert re.findall(r'<g class="(c\d)"><path class="band" d="(M?)', relearning) == [
        ("c0", ""),
        ("c1", "M"),
        ("c2", "M"),
    ], "a run has one colour"


def test_an_unlearning_run_shows_its_neighbours(make_run):
    work = make_run()
    for when in ("before", "after"):
        rows = [r for r in read_lines(work / "answers" / f"{when}.jsonl") if r["set"] != "retain"]
        retain = [
            {
                "set": "retain",
                "question": f"{'Where was writer' if i < 4 else 'What does'} {i}?",
                "answer": "a",
                "truth": "a",
            }
            for i in range(12)
        ]
        scores = [1.0 if when == "before" or i > 3 else 0.25 for i in range(12)]
        write_lines(
            work / "answers" / f"{when}.jsonl", rows + [r | {"rouge_l_recall": s} for r, s in zip(retain, scores)]
        )
    table = read.read_run(work, "run").tables["neighbours"]
    values = {line.name: line.value for line in table.lines}
    assert values["Near"] == 0.25 and values["Near less far, change"] == -0.75
    assert "Neighbouring knowledge" in parsed(page.write([work])).text
