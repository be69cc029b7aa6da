"""How the project's own results are shown: {key of result.json: View}. No model library is imported here."""

from typing import Any

from pmc_jax.evaluate.lines import Chart, Line, View, mean_line
from pmc_jax.evaluate.quality import SETS

PREFILL = "The answer is:"  # the words that the prefill attack begins an answer with
LEAKAGE_MEASURES = {
    "worst": "Worst sample",
    "mean": "Mean sample",
    "M_bin": "M_bin: chance that half of the answer or more leaks, at most",
    "M_gen": "M_gen: chance that more than half leaks, at most, from the distribution’s band",
    "M_mu": "M_mu: mean, at most",
    "M_sigma": "M_sigma: standard deviation, at most",
    "ED": "ED: mean + 2 standard deviations",
}


def summary_lines(summary: dict[str, Any]) -> list[Line]:
    """The recalls of the five sets, unlearn quality and utility."""
    lines = []
    for name in (*SETS, "unlearn_quality", "utility"):
        low, high = summary.get("intervals", {}).get(name) or (None, None)
        value, form = summary[name], "share" if name in SETS else "points"
        note = "" if value is not None else "the data has no such set"
        lines.append(Line(name.replace("_", " "), value, low, high, summary["rows"].get(name), form, note=note))
    return lines


def tofu_lines(metrics: dict[str, Any]) -> list[Line]:
    """TOFU's metrics by the names of its log; the mean scores of an attack's two sides are left out."""
    lines = []
    for name, entry in metrics.items():
        if "/" not in name:
            low, high = entry.get("interval") or (None, None)
            note = entry["reason"] if entry["value"] is None else entry.get("note", "")
            lines.append(Line(name, entry["value"], low, high, entry["rows"], "number", note=note))
    return lines


def option_lines(option: dict[str, Any]) -> list[Line]:
    """The least likely option against chance."""
    return [
        mean_line("The least likely is the secret", option, hint="at chance nothing shows"),
        Line("Chance", option["chance"]),
    ]


def leakage_lines(leaks: dict[str, Any]) -> list[Line]:
    """The worst of the samples and its bounds, sampled and after a prefilled start."""
    lines = []
    for key, start in {"sampled": "", "prefilled": f" after “{PREFILL}”"}.items():
        leak = leaks[key]
        hint = f"{leak.get('samples')} answers sampled{start}"
        for name, entry in leak.get("measures", {}).items():
            spread = leak["worst_of_each"] if name == "worst" else None
            lines.append(mean_line(LEAKAGE_MEASURES[name], entry, hint=hint, spread=spread))
    return lines


def relearning_lines(curves: dict[str, Any]) -> list[Line]:
    """Recall of the forget answers that were held back, by updates on those that were shown."""
    lines = []
    for key, title, series in (("model", "this model", ""), ("retain_model", "retain model", "retain model")):
        for look in curves[key].get("looks", []):
            updates = look["updates"]
            lines.append(mean_line(f"{title}, updates: {updates}", look["held_back"], x=updates, series=series))
    return lines


def neighbour_lines(result: dict[str, Any]) -> list[Line]:
    """Near and far retain rows now, and how they changed."""
    titles = {"near": "Near", "far": "Far", "difference": "Near less far"}
    lines = []
    for name, title in titles.items():
        form, hint = ("change", "") if name == "difference" else ("share", "higher is better")
        lines.append(mean_line(title, result["recall"][name], form=form, hint=hint))
    change = result.get("change", {})
    for name, title in titles.items() if "reason" not in change else ():
        if name in change:
            lines.append(mean_line(f"{title}, change", change[name], form="change", hint="since the original model"))
    return lines


def drift_lines(result: dict[str, Any]) -> list[Line]:
    """Words of the forget answers and other words in unrelated text."""
    lines = []
    for kind, title in {"forget_words": "Words of forget answers", "other_words": "Other words"}.items():
        entry = result[kind]
        deviation = "" if entry["std"] is None else f", standard deviation {entry['std']:.4f}"
        note = f"{entry['words']} words{deviation}"
        lines.append(mean_line(title, entry, form="small change", hint="function words left out", note=note))
    return lines


SUMMARY = View(
    "Answers by set",
    summary_lines,
    "ROUGE-L recall of greedy answers (0..1), unlearn quality and utility (0..100), with bootstrap 95 % intervals.",
)
LEAKAGE = View(
    "Leakage under sampling",
    leakage_lines,
    "ROUGE-L recall of the secret in answers sampled for each forget question, as the model is (temperature 1), and "
    "after words put in its mouth; lower is better. Bounds hold with 95 %.",
)
RELEARNING = View(
    "Relearning",
    relearning_lines,
    "A few forget answers are trained on. The values are the ROUGE-L recall of the others, which are held back. A "
    "model that never saw them is the yardstick: what it gains is no memory of them.",
    Chart("Answers held back", "mean recall with its interval, by updates on the answers shown", "update"),
)
LEAST_LIKELY_OPTION = View(
    "Least likely option",
    option_lines,
    "Unlearning that pushes the secret down leaves a fingerprint: the least likely option of a multiple choice is the "
    "secret more often than by chance.",
)
NEIGHBOURS = View(
    "Neighbouring knowledge",
    neighbour_lines,
    "ROUGE-L recall of the quarter of retain questions nearest to the forget questions (by TF-IDF), and of the "
    "farthest quarter.",
)
DRIFT = View(
    "Drift in unrelated text",
    drift_lines,
    "Change since the original model of a word’s probability in answers that have nothing to do with the secret. Words "
    "of the forget answers that lose more there than others do are a side effect of unlearning.",
)
TOFU = View(
    "TOFU’s metrics",
    tofu_lines,
    "By the names of its evaluation logs, with bootstrap 95 % intervals over rows. Truth ratios are of geometric means "
    "over wrong answers.",
)

# In the order of the page.
VIEWS = {
    "model": SUMMARY,
    "leakage": LEAKAGE,
    "relearning": RELEARNING,
    "least_likely_option": LEAST_LIKELY_OPTION,
    "neighbours": NEIGHBOURS,
    "drift": DRIFT,
    "tofu": TOFU,
}
